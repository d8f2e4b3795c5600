// What a value is called.

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
