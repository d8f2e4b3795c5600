// Factual and counterfactual in one place: swipe and blink.

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
