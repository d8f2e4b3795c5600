// A control for every attribute.

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
