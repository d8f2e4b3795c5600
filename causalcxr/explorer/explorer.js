"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const live = data.mode === "live";
const controls = new Map(data.controls.map((control) => [control.name, control]));
const named = () => Object.create(null); // by attribute, whatever it is called
const state = { row: 0, film: null, given: named(), do: named(), effect: data.effects[0], pixel_noise: data.modes[0], draws: 1, seed: 0 };
let shown = null; // the answer on the page

const get = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- what a value is called ---

function decimals(control) {
  return Math.max(0, -Math.floor(Math.log10(control.step)));
}

function worded(control, value) {
  if (value === undefined) return "not stated";
  return control.labels ? String(value) : `${Number(value).toFixed(decimals(control))} ${control.unit}`.trim();
}

function recorded(name) {
  const control = controls.get(name);
  if (state.film) return state.given[name];
  const value = data.patients.values[name][state.row];
  return control.labels ? control.labels[value] : value;
}

function reached() {
  if (state.effect === "direct") return new Set([data.image]);
  return new Set(Object.keys(state.do).flatMap((name) => controls.get(name).reaches));
}

function asked(name, value) { // of an intervention: not rounded as a recorded number is
  const control = controls.get(name);
  return control.labels ? value : `${Number(Number(value).toFixed(decimals(control) + 2))} ${control.unit}`.trim();
}

function interventions(set) {
  return Object.entries(set).map(([name, value]) => `${name} = ${asked(name, value)}`).join(", ");
}

// --- the controls ---

function radios(name, values, chosen, choose) {
  return values.map((value) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("click", () => choose(value)); // the label that is recorded can be set as well
    return make("label", {}, input, ` ${value}`);
  });
}

function slider(control) {
  const stops = live ? null : data.stops[control.name];
  const low = stops ? 0 : control.low;
  const high = stops ? stops.length - 1 : low + Math.ceil((control.high - low) / control.step - 1e-9) * control.step;
  const input = make("input", { type: "range", min: low, max: high, step: stops ? 1 : control.step });
  input.id = `slider-${control.name}`;
  input.setAttribute("aria-label", `${control.name}${control.unit ? `, ${control.unit}` : ""}`);
  input.addEventListener("input", () => intervene(control.name, stops ? stops[input.value] : Math.min(control.high, Number(input.value))));
  const ends = stops ? [stops[0], stops[stops.length - 1]] : [low, control.high];
  const about = make("span", { className: "state", textContent: ` ${ends[0]} to ${ends[1]} ${control.unit}` });
  if (stops) return make("div", {}, input, about);
  const field = make("input", { type: "number", min: low, max: control.high, step: "any" });
  field.setAttribute("aria-label", `${control.name} as a number`);
  field.addEventListener("change", () => field.value !== "" && intervene(control.name, Number(field.value)));
  return make("div", {}, input, field, about);
}

function addAttributes() {
  for (const control of data.controls) {
    const legend = make("legend", {}, `${control.name} `, make("span", { className: "state" }));
    const field = make("fieldset", { id: `attribute-${control.name}`, title: control.about }, legend);
    if (control.labels) field.append(...radios(`do-${control.name}`, control.labels, null, (label) => intervene(control.name, label)));
    else field.append(slider(control));
    const undo = make("button", { type: "button", textContent: "As recorded" });
    undo.setAttribute("aria-label", `${control.name} as recorded`);
    undo.addEventListener("click", () => { delete state.do[control.name]; changed(); });
    field.append(make("div", { className: "buttons" }, undo));
    get("attributes").append(field);
  }
}

function intervene(name, value) {
  if (!live) state.do = named();
  state.do[name] = value;
  changed();
}

function showControls() {
  const below = reached();
  for (const control of data.controls) {
    const { name } = control;
    const field = get(`attribute-${name}`);
    const isSet = name in state.do;
    const value = isSet ? state.do[name] : recorded(name);
    field.className = isSet ? "set" : below.has(name) ? "reached" : "";
    field.querySelector(".state").textContent = isSet ? `set to ${asked(name, value)}` : `recorded ${worded(control, value)}`;
    if (control.labels) for (const input of field.querySelectorAll("input")) input.checked = input.value === value;
    else showSlider(field, control, value);
    field.querySelector("button").hidden = !isSet;
  }
  showGraph(below);
}

function showSlider(field, control, value) {
  const input = field.querySelector("input[type=range]");
  const number = field.querySelector("input[type=number]");
  if (number && number !== document.activeElement) number.value = value === undefined ? "" : Number(value.toFixed(decimals(control) + 2));
  if (value === undefined) return;
  const stops = live ? null : data.stops[control.name];
  const nearest = (best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best);
  input.value = stops ? stops.reduce(nearest, 0) : value;
  input.setAttribute("aria-valuetext", worded(control, value));
}

// --- the graph ---

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function drawGraph() {
  const { width, height, nodes, edges } = data.drawing;
  get("graph").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const head = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" });
  head.append(svg("path", { d: "M0,0 L8,4 L0,8 z", fill: "currentColor" }));
  get("graph").append(svg("defs", {}, head));
  for (const { cause, effect, line: [x1, y1, x2, y2] } of edges)
    get("graph").append(svg("line", { x1, y1, x2, y2, "marker-end": "url(#head)", "data-cause": cause, "data-effect": effect }));
  for (const { name, x, y } of nodes)
    get("graph").append(svg("g", { "data-node": name }, svg("circle", { cx: x, cy: y, r: 24 }), svg("text", { x, y }, name.length > 9 ? `${name.slice(0, 8)}…` : name)));
}

function showGraph(below) {
  const on = (name) => name in state.do || below.has(name);
  for (const node of get("graph").querySelectorAll("[data-node]")) {
    const name = node.getAttribute("data-node");
    node.setAttribute("class", name in state.do ? "set" : below.has(name) ? "reached" : "");
  }
  for (const line of get("graph").querySelectorAll("line")) {
    const { cause, effect } = line.dataset;
    const isCut = effect in state.do || (state.effect === "direct" && effect !== data.image && on(cause));
    line.setAttribute("class", isCut ? "cut" : on(cause) && below.has(effect) ? "reached" : "");
  }
  const set = Object.keys(state.do).join(", ") || "nothing";
  get("graph").setAttribute("aria-label", `Causal graph. Intervened on: ${set}. Follow: ${[...below].join(", ") || "none"}.`);
}

// --- patients ---

function matching() {
  const rows = data.patients.id.map((_, row) => row);
  const filters = [...document.querySelectorAll("#filters [data-filter]")].filter((input) => input.value !== "");
  return rows.filter((row) => filters.every((input) => {
    const value = data.patients.values[input.dataset.filter][row];
    if (input.dataset.end === "low") return value >= Number(input.value);
    if (input.dataset.end === "high") return value <= Number(input.value);
    return value === Number(input.value);
  }));
}

function addFilters() {
  for (const control of data.controls) {
    const { name } = control;
    if (control.labels) {
      const options = control.labels.map((label, i) => make("option", { value: i, textContent: label }));
      const select = make("select", {}, make("option", { value: "", textContent: "any" }), ...options);
      select.dataset.filter = name;
      get("filters").append(make("label", {}, `${name} `, select));
    } else {
      const ends = ["low", "high"].map((end) => {
        const input = make("input", { type: "number", step: "any", placeholder: end === "low" ? control.low : control.high });
        input.setAttribute("aria-label", `${name}, ${end === "low" ? "from" : "to"}`);
        Object.assign(input.dataset, { filter: name, end });
        return input;
      });
      get("filters").append(make("div", {}, `${name} from `, ends[0], " to ", ends[1], ` ${control.unit}`));
    }
  }
  get("filters").addEventListener("change", () => {
    const rows = matching();
    if (rows.length && !rows.includes(state.row)) choose(rows[0]);
    showWho();
  });
}

function choose(row) {
  uploads++;
  Object.assign(state, { row, film: null, given: named() });
  if (live) {
    get("given").hidden = true;
    get("film").value = "";
  }
  changed();
}

function move(step) {
  const rows = matching();
  if (!rows.length) return showError("Nobody matches the filters.");
  const at = rows.indexOf(state.row);
  choose(at < 0 ? rows[0] : rows[(at + step + rows.length) % rows.length]);
}

function find() {
  const { id, patient } = data.patients;
  const wanted = get("find").value.trim().toLowerCase();
  if (!wanted) return;
  const row = [patient, id].map((column) => column.findIndex((value) => String(value).toLowerCase() === wanted)).find((at) => at >= 0);
  if (row === undefined) return showError(`Of the ${id.length} films of the split '${data.split}' none has the patient id or row '${wanted}'.`);
  get("find").value = "";
  choose(row);
}

function showWho() {
  if (state.film) {
    get("who").textContent = `Uploaded: ${state.film.name}`;
    return;
  }
  const { id, patient } = data.patients;
  const values = data.controls.map((control) => worded(control, recorded(control.name))).join(", ");
  const count = matching().length;
  const among = count < id.length ? `; ${count} of ${id.length} match` : `; ${id.length} to choose from`;
  get("who").textContent = `Patient ${patient[state.row]}${live ? ` (row ${id[state.row]})` : ""}: ${values}${among}`;
}

let uploads = 0;

async function upload(file) {
  if (!file) return;
  const mine = ++uploads;
  say("Reading the film …");
  try {
    const name = encodeURIComponent(file.name).slice(0, 200);
    const answer = await (await fetch("film", { method: "POST", body: file, headers: { "X-Name": name } })).json();
    if (mine !== uploads) return; // somebody else was chosen meanwhile
    if (answer.error) return showError(answer.error);
    Object.assign(state, { film: { ...answer, name: file.name }, given: named(), do: named() });
    get("given").hidden = false;
    for (const input of get("given").querySelectorAll("select, input")) input.value = "";
    changed();
  } catch (error) {
    if (mine === uploads) showError(`The film was not read: ${error.message}`);
  }
}

function showFilmAlone(text) { // until its attributes are stated nothing is asked, and nothing of another patient stays
  forget();
  const image = { ...state.film, levels: levels(state.film) };
  picture(get("films"), "factual", "factual", image, plain(image), "The uploaded film, as the model takes it");
  say(text);
}

function addGiven() {
  for (const control of data.controls) {
    const { name } = control;
    const input = control.labels
      ? make("select", {}, make("option", { value: "", textContent: "choose" }), ...control.labels.map((label) => make("option", { textContent: label })))
      : make("input", { type: "number", min: control.low, max: control.high, step: "any" });
    input.addEventListener("change", () => {
      if (input.value === "") delete state.given[name];
      else state.given[name] = control.labels ? input.value : Number(input.value);
      changed();
    });
    get("given").append(make("label", { className: "wide" }, `${name}${control.unit ? ` (${control.unit})` : ""} `, input));
  }
}

// --- asking ---

let busy = false;
let waiting = false;

function changed() {
  get("error").hidden = true;
  showControls();
  showWho();
  waiting = true;
  showBusy(true); // what is on the page is of the question before
  if (!busy) askAll();
}

function showBusy(isBusy) {
  get("pictures").setAttribute("aria-busy", String(isBusy));
  for (const button of document.querySelectorAll(".keep button")) button.disabled = isBusy || !shown;
}

async function askAll() { // one question at a time; of those that come meanwhile only the last is asked
  busy = true;
  try {
    while (waiting) {
      waiting = false;
      const missing = state.film ? data.controls.filter(({ name }) => state.given[name] === undefined) : [];
      if (missing.length) {
        showFilmAlone(`State what is recorded of this patient: ${missing.map(({ name }) => name).join(", ")}.`);
        continue;
      }
      const answer = await answered();
      if (waiting) continue; // it is of a question that is no longer asked
      if (answer.error) forget(answer.error);
      else show(answer);
    }
  } finally {
    busy = false;
    showBusy(false);
  }
}

async function answered() {
  try {
    return live ? await ask(question()) : data.answers[stopKey()];
  } catch (error) {
    return { error: `No answer: ${error.message}. Is the server still running?` };
  }
}

function question() {
  const { row, film, given, do: set, effect, pixel_noise, draws, seed } = state;
  const who = film ? { pixels: film.data, name: film.name, given } : { row };
  return { ...who, do: set, effect, pixel_noise, draws, seed };
}

async function ask(asked) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("answer", { method: "POST", headers, body: JSON.stringify(asked) });
  if (!answer.ok) throw new Error(`the server says ${answer.status}`);
  return answer.json();
}

function stopKey() {
  const [set] = Object.entries(state.do);
  if (!set) return `${state.row}`;
  const stops = data.stops[set[0]];
  return `${state.row}|${set[0]}|${stops.indexOf(set[1])}`;
}

function say(text) {
  get("status").textContent = text;
}

function showError(text) {
  get("error").textContent = text;
  get("error").hidden = false;
  say("");
}

function forget(text) { // what is on the page belongs to another question
  shown = null;
  get("films").replaceChildren();
  get("warning").hidden = true;
  get("read").hidden = true;
  for (const id of ["values", "reads", "numbers"]) get(id).replaceChildren();
  if (live) get("python").replaceChildren();
  get("compared").width = get("compared").height = 1;
  get("comparing").textContent = "";
  showControls();
  if (text) showError(text);
}

// --- pictures ---

function levels(image) {
  return Uint8Array.from(atob(image.data), (letter) => letter.charCodeAt(0));
}

function grey(image, i) { // level of pixel i, the mean over channels
  const [channels, height, width] = image.shape;
  let sum = 0;
  for (let c = 0; c < channels; c++) sum += image.levels[c * height * width + i];
  return sum / channels;
}

function draw(canvas, image, colour) {
  const [, height, width] = image.shape;
  canvas.width = width;
  canvas.height = height;
  const pixels = canvas.getContext("2d").createImageData(width, height);
  for (let i = 0; i < width * height; i++) pixels.data.set(colour(i), 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function plain(image) {
  const [channels, height, width] = image.shape;
  const plane = height * width;
  return (i) => [0, 1, 2].map((c) => image.levels[(channels === 3 ? c : 0) * plane + i]).concat(255);
}

function signed(image, from) {
  const ends = { true: [178, 24, 43], false: [33, 102, 172] };
  return (i) => {
    const change = Math.max(-1, Math.min(1, (grey(image, i) - grey(from, i)) / data.limit));
    const end = ends[change > 0];
    return end.map((channel) => Math.round(255 + (channel - 255) * Math.abs(change))).concat(255);
  };
}

function picture(parent, id, title, image, colour, label, className = "") {
  const canvas = make("canvas", { id });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  draw(canvas, image, colour);
  parent.append(make("figure", { className }, canvas, make("figcaption", { textContent: title })));
}

function unpack(answer) {
  const of = (run) => [run.image, run.base, run.null.image, ...run.draws.map((one) => one.image)];
  const images = [answer.factual.image, answer.exact?.image, ...answer.runs.flatMap(of)];
  for (const image of images) if (image) image.levels = levels(image);
}

function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

function showPictures(answer) {
  const factual = answer.factual.image;
  const box = make("div", { className: "films", id: "films" });
  const first = make("div", { className: "group" });
  picture(first, "factual", "factual", factual, plain(factual), "The factual image");
  if (answer.exact) {
    const image = answer.exact.image;
    picture(first, "exact", "exact counterfactual", image, plain(image), "The exact counterfactual, from the simulator");
    picture(first, "exact-change", "exact change", image, signed(image, factual), "The exact change, in grey levels");
  }
  box.append(first);
  answer.runs.forEach((run, i) => {
    const group = make("div", { className: "group" }, make("h3", { textContent: run.name }));
    const draws = make("div", { className: "group" });
    for (const one of [group, draws]) one.dataset.run = run.name;
    const mean = run.draws.length ? `, mean of ${answer.question.draws} draws` : "";
    const error = run.error === null ? "" : `, exact error ${number(run.error)}`;
    picture(group, `run-${i}`, `counterfactual${mean}`, run.image, plain(run.image), `Counterfactual of ${run.name}`);
    picture(group, `change-${i}`, `change: ${number(run.change.mean, 1)} grey levels on average${error}`, run.image, signed(run.image, run.base), `Change by ${run.name}, in grey levels`);
    picture(group, `null-${i}`, `null edit: ${number(run.null.change.mean, 1)} grey levels`, run.null.image, signed(run.null.image, factual), `What changes in ${run.name} when nothing is asked`);
    run.draws.forEach((one, k) => {
      const follows = Object.entries(one.attributes).filter(([name]) => !Object.hasOwn(answer.question.do, name)).map(([, word]) => word);
      const title = [`draw ${k + 1}`, ...follows].join(": ");
      picture(draws, `draw-${i}-${k}`, title, one.image, plain(one.image), `${title}, of ${run.name}`, "small");
    });
    box.append(group);
    if (run.draws.length) box.append(draws);
  });
  get("films").replaceWith(box);
}

// --- compare ---

let blinking = null;
let isFactual = true;

function compared() { // name and picture
  const i = Number(get("with").value);
  if (i === shown.runs.length && shown.exact) return ["the exact counterfactual", shown.exact.image];
  const run = shown.runs[Math.min(i, shown.runs.length - 1)];
  return [`the counterfactual of ${run.name}`, run.image];
}

function showCompared() {
  if (!shown) return;
  const factual = shown.factual.image;
  const [, , width] = factual.shape;
  const [name, image] = compared();
  const [one, other] = [plain(factual), plain(image)];
  get("comparing").textContent = blinking ? `now ${isFactual ? "the factual film" : name}` : `left the factual film, right ${name}`;
  const edge = (width * Number(get("swipe").value)) / 100;
  draw(get("compared"), factual, blinking ? (isFactual ? one : other) : (i) => (i % width < edge ? one(i) : other(i)));
}

function blink() {
  get("blink").setAttribute("aria-pressed", String(!blinking));
  if (blinking) {
    clearInterval(blinking);
    blinking = null;
  } else {
    blinking = setInterval(() => { isFactual = !isFactual; showCompared(); }, 600);
  }
  showCompared();
}

// --- tables ---

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
    return [`${names.length > 1 ? `${run.name}: ` : ""}${one.what}`, number(one.before, digits) + unit, number(one.after, digits) + unit, { text: sign + number(change, digits), className }, expected];
  }));
  table("reads", ["", "as recorded", "counterfactual", "change", ""], reads);
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

// --- keep ---

function save(name, content, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function ofWhom() { // the patient of what is shown
  const { film } = shown.question;
  return film === undefined ? `patient ${shown.patient.patient}` : film.replace(/\.[^.]*$/, "");
}

function fileName(ending) {
  const set = Object.entries(shown.question.do).flat().join(" ");
  return `${ofWhom()} ${set || "as recorded"}`.slice(0, 120).replace(/[^\p{L}\p{N}.-]+/gu, "-") + ending;
}

function lines(context, text, width) { // a text broken to a width
  const found = [""];
  for (const word of text.split(" ")) {
    const longer = `${found[found.length - 1]} ${word}`.trim();
    if (context.measureText(longer).width <= width || !found[found.length - 1]) found[found.length - 1] = longer;
    else found.push(word);
  }
  return found;
}

function savePicture() {
  const groups = [...document.querySelectorAll("#films .group")];
  const rows = groups.map((group) => [...group.querySelectorAll("figure")]);
  const [side, gap, line, caption] = [256, 16, 18, 76];
  const longest = Math.max(...rows.map((row) => row.length));
  const { pixel_noise, seed } = shown.question;
  const who = `${ofWhom()}: ${Object.values(shown.factual.attributes).join(", ")}.`;
  const how = `Pixel noise ${pixel_noise}, seed ${seed}. Differences from -${data.limit} (blue) to +${data.limit} (red) grey levels.`;
  const font = "14px sans-serif";
  const measured = make("canvas").getContext("2d");
  measured.font = font;
  const width = gap + longest * (side + gap);
  const title = lines(measured, ["Not for clinical use.", who, sentence(shown), how].join(" "), width - 2 * gap);
  const head = (title.length + 1) * line;
  const canvas = make("canvas", { width, height: head + rows.length * (side + caption) + gap });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.font = font;
  context.fillStyle = "#222";
  context.strokeStyle = "#999";
  title.forEach((text, i) => context.fillText(text, gap, (i + 1) * line));
  rows.forEach((figures, y) => figures.forEach((figure, x) => {
    const [left, top] = [gap + x * (side + gap), head + y * (side + caption)];
    context.drawImage(figure.querySelector("canvas"), left, top, side, side);
    context.strokeRect(left - 0.5, top - 0.5, side + 1, side + 1);
    const { run } = groups[y].dataset;
    const text = (run ? `${run}: ` : "") + figure.querySelector("figcaption").textContent;
    lines(context, text, side).slice(0, 3).forEach((one, i) => context.fillText(one, left, top + side + (i + 1) * line));
  }));
  canvas.toBlob((blob) => save(fileName(".png"), blob, "image/png"));
}

function saveNumbers() {
  const runs = shown.runs.map(({ name, attributes, shares, change, null: nothing, spread, error, reads }) =>
    ({ name, attributes, shares, change, null_edit: nothing.change, spread, error, reads }));
  const { question: asked, patient, factual, exact, moved, near, warning, version } = shown;
  const kept = { question: asked, patient, factual: factual.attributes, exact: exact?.attributes ?? null, runs, moved, near, warning, version };
  save(fileName(".json"), JSON.stringify(kept, null, 2), "application/json");
}

// --- begin ---

addAttributes();
drawGraph();
data.runs.forEach((name, i) => get("with").append(make("option", { value: i, textContent: `counterfactual of ${name}` })));
if (data.exact) get("with").append(make("option", { value: data.runs.length, textContent: "exact counterfactual" }));
for (const [id, step] of [["previous", -1], ["next", 1]]) get(id).addEventListener("click", () => move(step));
get("random").addEventListener("click", () => {
  const rows = matching();
  if (rows.length) choose(rows[Math.floor(Math.random() * rows.length)]);
});
get("clear").addEventListener("click", () => { state.do = named(); changed(); });
get("controls").addEventListener("submit", (event) => event.preventDefault());
get("with").addEventListener("change", showCompared);
get("swipe").addEventListener("input", showCompared);
get("blink").addEventListener("click", blink);
get("save-picture").addEventListener("click", savePicture);
get("save-numbers").addEventListener("click", saveNumbers);
if (live) {
  get("save-python").addEventListener("click", () => save(fileName(".py"), shown.python, "text/x-python"));
  addFilters();
  addGiven();
  get("find").addEventListener("change", find);
  get("film").addEventListener("change", () => upload(get("film").files[0]));
  const how = (key) => (value) => { state[key] = value; changed(); };
  get("effect").append(...radios("effect", data.effects, state.effect, how("effect")));
  get("pixel_noise").append(...radios("pixel_noise", data.modes, state.pixel_noise, how("pixel_noise")));
  for (const id of ["draws", "seed"]) get(id).addEventListener("change", () => { state[id] = Number(get(id).value); changed(); });
}
changed();
