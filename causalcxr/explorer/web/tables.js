// An answer in words and numbers.

function table(id, head, rows) {
  const cells = (row) => row.map((cell, i) => {
    const { text, className = "" } = typeof cell === "object" ? cell : { text: cell };
    return make(i ? "td" : "th", i ? { textContent: text, className } : { textContent: text, scope: "row" });
  });
  get(id).replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
  );
}

function showTables(answer) {
  const names = answer.runs.map((run) => run.name);
  const exact = answer.exact ? [answer.exact] : [];
  table("values", ["", "recorded", ...names, ...(answer.exact ? ["exact"] : [])], data.controls.map(({ name }) => {
    const was = answer.factual.attributes[name];
    const word = (one) => one.attributes[name] + (one.shares && Object.hasOwn(one.shares, name) ? ` (${one.shares[name]} draws)` : "");
    const now = [...answer.runs, ...exact].map((one) => ({ text: word(one), className: one.attributes[name] === was ? "" : "moved" }));
    const onlyBelow = answer.question.effect === "indirect" ? " (set for what follows)" : " (set)";
    const how = Object.hasOwn(answer.question.do, name) ? onlyBelow : answer.moved.includes(name) ? " (follows)" : "";
    return [name + how, was, ...now];
  }));
  const reads = answer.runs.flatMap((run) => Object.values(run.reads).map((one) => {
    const digits = one.discrete ? 2 : 1 + decimals(controls.get(one.name));
    const change = one.after - one.before;
    const className = one.stays && Math.abs(change) > one.tolerance ? "wrong" : "";
    const sign = change > 0 ? "+" : "";
    const unit = one.unit ? ` ${one.unit}` : "";
    const expected = one.stays ? "should stay" : "may change";
    return [`${names.length > 1 ? `${run.name}: ` : ""}${one.what}`, number(one.before, digits) + unit, number(one.after, digits) + unit, { text: sign + number(change, digits), className }, expected, one.quality || "not evaluated"];
  }));
  table("reads", ["", "as recorded", "counterfactual", "change", "", "how good it is"], reads);
  get("read").hidden = !reads.length;
  const per = (title, of) => [title, ...answer.runs.map(of)];
  const rows = [
    per("mean absolute change, grey levels", (run) => number(run.change.mean)),
    per("largest change, grey levels", (run) => number(run.change.largest, 1)),
    per("null edit, mean, grey levels", (run) => number(run.null.change.mean)),
    per("draws apart, grey levels", (run) => (run.spread === null ? "one draw" : number(run.spread))),
  ];
  if (answer.exact) rows.push(per("exact error (0 exact, 1 as good as nothing)", (run) => number(run.error)));
  rows.push(["training images like the counterfactual", ...answer.runs.map((run, i) => (i ? "" : String(answer.near)))]);
  table("numbers", ["", ...names], rows);
}

function showFollowing(answer) { // what follows, in the controls
  for (const name of answer.moved.filter((one) => !Object.hasOwn(answer.question.do, one))) {
    const field = get(`attribute-${name}`);
    const [run] = answer.runs;
    const share = Object.hasOwn(run.shares, name) ? ` in ${run.shares[name]} draws` : "";
    field.querySelector(".state").textContent = `follows: ${run.attributes[name]}${share}`;
    for (const input of field.querySelectorAll("input[type=radio]")) input.checked = input.value === run.attributes[name];
  }
}

function sentence(answer) {
  const { do: set, effect, draws } = answer.question;
  if (!Object.keys(set).length) return "Nothing is asked: the film stays as it is. Move an attribute.";
  const how = (effect === "total" ? "" : `, ${effect} effect`) + (draws > 1 ? `, ${draws} draws` : "");
  const each = answer.runs.map((run) => {
    const error = run.error === null ? "" : ` (exact error ${number(run.error)})`;
    const name = answer.runs.length > 1 ? ` in ${run.name}` : "";
    return `${number(run.change.mean, 1)} of 255 grey levels${name}${error}`;
  });
  return `do(${interventions(set)})${how}: the film changes on average by ${each.join(", ")}.`;
}

function show(answer) {
  unpack(answer);
  shown = answer;
  get("warning").textContent = answer.warning;
  get("warning").hidden = !answer.warning;
  showPictures(answer);
  showCompared();
  showTables(answer);
  if (live) get("python").textContent = answer.python;
  showControls();
  showFollowing(answer);
  say(sentence(answer));
  document.body.dataset.answers = Number(document.body.dataset.answers || 0) + 1;
}
