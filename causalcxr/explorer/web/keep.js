// Picture, numbers and Python lines as files.

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
