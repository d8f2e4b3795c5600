// One question at a time; what is on the page is of the last.

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
      const before = whom();
      const answer = await answered();
      if (before !== whom()) continue; // somebody else is asked about by now
      if (answer.error) forget(answer.error);
      else show(answer);
    }
  } finally {
    busy = false;
    showBusy(false);
  }
}

function whom() {
  return `${state.row} ${state.film ? state.film.number : ""} ${JSON.stringify(state.given)}`;
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
