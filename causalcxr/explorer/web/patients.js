// Who is asked about: somebody of the cohort, or an uploaded film.

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
    Object.assign(state, { film: { ...answer, name: file.name, number: mine }, given: named(), do: named() });
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
