/* The frontier: every network of the path by cost and score, a slider over the target, and the layers at its point. */
"use strict";

function drawFrontier() {
  const place = placeOf("frontier");
  if (!place || !data.path.length) return;
  const slider = document.getElementById("target");
  let chosen = d3.greatest(data.path, (point) => point.place);
  let mark = () => {};

  keepDrawn(place, (width) => {
    const chart = frontierChart(width);
    mark = markerOn(chart);
    mark(chosen);
    chart.addEventListener("click", () => {
      if (chart.value) choose(chart.value, true);
    });
    return chart;
  });
  place.addEventListener("pointerdown", (event) => event.stopPropagation(), { capture: true }); // a tip is not held
  const strip = drawStrip();

  function choose(point, moveSlider) {
    chosen = point;
    if (moveSlider) slider.value = Math.ceil(point.share * 1000) / 10;
    const wanted = `${d3.format(".1f")(slider.value)}%`;
    document.getElementById("target-value").textContent = wanted;
    document.getElementById("readout").textContent = `${point.name}: ${point.words}.`;
    slider.setAttribute("aria-valuetext", `at most ${wanted} of the multiply-adds: ${point.name}, ${point.words}`);
    mark(point);
    strip(point);
  }

  let waiting = false;
  slider.addEventListener("input", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      choose(dearestWithin(Number(slider.value) / 100), false);
    });
  });
  choose(chosen, true);
}

/* The network that makes most of a target: of those that keep to it the dearest, of equal ones the last. */
function dearestWithin(share) {
  const within = data.path.filter((point) => point.share <= share + 1e-6);
  if (!within.length) return data.path[data.path.length - 1];
  const equals = within.filter((point) => point.macs === within[0].macs);
  return equals[equals.length - 1];
}

function frontierChart(width) {
  const scores = data.path.map((point) => point.score);
  const shares = data.path.map((point) => point.share);
  return Plot.plot({
    width,
    height: Math.max(240, Math.min(380, width * 0.5)),
    marginLeft: 52,
    marginRight: 16,
    marginTop: 28,
    marginBottom: 40,
    ...phaseScales(),
    x: { label: "share of the multiply-adds", tickFormat: percent, domain: [Math.min(d3.min(shares), 0.95) * 0.92, 1.02], ticks: width < 420 ? 5 : 8 },
    y: scoreAxis(data.score, scores),
    marks: [
      Plot.line(data.path.filter((point) => point.phase !== "finetune"), { x: "share", y: "score", z: "phase", stroke: "phase", strokeWidth: 1.5, strokeOpacity: 0.6 }),
      Plot.dot(data.path, { x: "share", y: "score", fill: "phase", symbol: "phase", r: data.path.length > 60 ? 3.5 : 5.5, className: "points" }),
      Plot.tip(data.path, Plot.pointer({ x: "share", y: "score", title: (point) => `${point.name}\n${point.words}`, lineWidth: 22, fontSize: 12, lineHeight: 1.3, maxRadius: 60 })),
    ],
  });
}

/* A ring that can be put around one point of a chart. */
function markerOn(chart) {
  const x = chart.scale("x");
  const y = chart.scale("y");
  const ring = d3.select(chart.matches("svg") ? chart : chart.querySelector("svg")).append("circle").attr("class", "selected").attr("r", 10);
  return (point) => ring.attr("cx", x.apply(point.share)).attr("cy", y.apply(point.score));
}

/* The layers front to back as columns: what they were behind, what they are at the point in front. */
function drawStrip() {
  const place = placeOf("strip");
  if (!place || !data.layers.some((layer) => layer.along.length)) return () => {};
  const layers = data.layers.map((layer, number) => ({ ...layer, number }));
  let chosen = null;
  let update = () => {};

  keepDrawn(place, (width) => {
    const chart = stripChart(layers, width);
    const y = chart.scale("y");
    const columns = d3.select(chart).selectAll("g.now rect");
    update = (point) => {
      columns.each(function (number) {
        const now = layers[number].along[point.place] ?? 0;
        const top = y.apply(now);
        this.setAttribute("y", top);
        this.setAttribute("height", Math.max(0, y.apply(0) - top));
      });
    };
    if (chosen) update(chosen);
    return chart;
  });
  return (point) => {
    chosen = point;
    update(point);
  };
}

function stripChart(layers, width, now = "before", color = "var(--accent)") {
  return Plot.plot({
    width,
    height: 150,
    marginLeft: 52,
    marginRight: 16,
    marginTop: 20,
    marginBottom: 28,
    x: { type: "band", domain: layers.map((layer) => layer.number), axis: null, padding: layers.length > 120 ? 0 : 0.2 },
    y: { label: "channels of each layer, front to back", ticks: 3, grid: true },
    marks: [
      Plot.barY(layers, { x: "number", y: "before", fill: "var(--track)" }),
      Plot.barY(layers, { x: "number", y: now, fill: color, className: "now" }),
      Plot.ruleY([0], { stroke: "var(--faint)" }),
      Plot.tip(layers, Plot.pointerX({ x: "number", y: "before", title: (layer) => `${layer.name} (${layer.kind})\n${layer.before} channels before, ${layer.after} in the outcome`, fontSize: 12, lineHeight: 1.3 })),
    ],
  });
}
