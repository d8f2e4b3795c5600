// The graph, with what is set and what follows.

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
