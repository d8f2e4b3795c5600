// Levels to canvases, exactly.

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
