/* The frontier: every network of the path by cost and score, and the layers of the one that is chosen. */
"use strict";

function drawFrontier() {
  const place = placeOf("frontier");
  if (!place || !data.path.length) return;
  const choice = choiceAmong(data.path, d3.greatest(data.path, (point) => point.place));
  drawChoosable(place, frontierChart, choice, "score");
  choice.follow(drawStrip());
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
