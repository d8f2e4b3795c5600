// What happens where; then the first question.

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
