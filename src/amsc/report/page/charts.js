/* The other charts of a run: its layers, what reconstruction gave back, the norms of its groups, and training. */
"use strict";

/* The network before and after: a track as wide as the layer was, filled as far as it still is; what is gone is struck. */
function drawLayers() {
  const place = placeOf("layers");
  if (!place || !data.layers.length) return;
  keepDrawn(place, (width) => {
    const { most, margin } = namesFor(width, data.layers.map((layer) => layer.name));
    const gone = data.layers.filter((layer) => layer.after === 0);
    return Plot.plot({
      width,
      height: 46 + 20 * data.layers.length,
      marginLeft: margin,
      marginRight: 84,
      marginTop: 34,
      marginBottom: 8,
      x: { label: "channels", axis: "top", ticks: 4, grid: true },
      y: { domain: data.layers.map((layer) => layer.name), label: null, padding: 0.3, tickSize: 0, tickFormat: (name) => shortened(name, most) },
      marks: [
        Plot.barX(data.layers, { y: "name", x: "before", fill: "var(--track)" }),
        Plot.barX(data.layers, { y: "name", x: "after", fill: "var(--accent)" }),
        Plot.ruleY(gone, { y: "name", x1: 0, x2: "before", stroke: "var(--bad)", strokeWidth: 1.5 }),
        Plot.text(data.layers, {
          y: "name",
          x: "before",
          text: (layer) => (layer.after === 0 ? "gone" : layer.after === layer.before ? `${layer.before}` : `${layer.before} → ${layer.after}`),
          textAnchor: "start",
          dx: 7,
          fill: (layer) => (layer.after === 0 ? "var(--bad)" : layer.after < layer.before ? "var(--accent)" : "var(--soft)"),
        }),
      ],
    });
  });
}

function drawReconstruction() {
  const place = placeOf("reconstruction");
  if (!place || !data.repaired.length) return;
  keepDrawn(place, (width) => {
    const { most, margin } = namesFor(width, data.repaired.map((layer) => layer.name));
    return Plot.plot({
      width,
      height: 60 + 22 * data.repaired.length,
      marginLeft: margin,
      marginRight: 20,
      marginTop: 34,
      marginBottom: 8,
      x: { label: "error, share of the variance", axis: "top", ticks: width < 420 ? 3 : 6, grid: true, domain: [0, d3.max(data.repaired, (layer) => Math.max(layer.before, layer.after)) * 1.02 || 1], tickFormat: "~g" },
      y: { domain: data.repaired.map((layer) => layer.name), label: null, tickSize: 0, tickFormat: (name) => shortened(name, most) },
      marks: [
        Plot.ruleX([0], { stroke: "var(--line)" }),
        Plot.link(data.repaired, { x1: "before", x2: "after", y1: "name", y2: "name", stroke: "var(--faint)", strokeWidth: 1.5 }),
        Plot.dot(data.repaired, { x: "before", y: "name", stroke: "var(--depth)", fill: "var(--panel)", r: 4.5, strokeWidth: 1.75 }),
        Plot.dot(data.repaired, { x: "after", y: "name", fill: "var(--good)", r: 5 }),
        Plot.tip(data.repaired, Plot.pointerY({ x: "before", y: "name", fontSize: 12, lineHeight: 1.3, title: (layer) => `${layer.name}\nas cut ${layer.before.toPrecision(3)}, reconstructed ${layer.after.toPrecision(3)}` })),
      ],
    });
  });
}

function drawNorms(kind) {
  const place = placeOf(`norms-${kind}`);
  const lines = data.norms[kind];
  if (!place || !lines.length) return;
  const points = lines.flatMap((line) => line.points.map((point) => ({ ...point, name: line.name, isGone: line.isGone })));
  keepDrawn(place, (width) =>
    Plot.plot({
      width,
      height: Math.max(230, Math.min(340, width * 0.45)),
      marginLeft: 52,
      marginRight: 16,
      marginTop: 28,
      marginBottom: 40,
      x: { label: "epochs of training", ticks: width < 420 ? 4 : 8 },
      y: { label: "norm, as a share of where it began", grid: true, ticks: 5, domain: [0, Math.max(1.05, d3.max(points, (point) => point.norm))], tickFormat: percent },
      marks: [
        Plot.line(points.filter((point) => !point.isGone), { x: "epoch", y: "norm", z: "name", stroke: "var(--accent)", strokeOpacity: 0.75, strokeWidth: 1.5 }),
        Plot.line(points.filter((point) => point.isGone), { x: "epoch", y: "norm", z: "name", stroke: "var(--depth)", strokeWidth: 1.5, strokeDasharray: "5 3" }),
        Plot.line(points, Plot.pointer({ x: "epoch", y: "norm", z: "name", stroke: "var(--ink)", strokeWidth: 2.5 })),
        Plot.tip(points, Plot.pointer({ x: "epoch", y: "norm", fontSize: 12, lineHeight: 1.3, title: (point) => `${point.name}\n${finePercent(point.norm)} after ${d3.format(".2~f")(point.epoch)} epochs${point.isGone ? "; gone in the end" : ""}` })),
      ],
    })
  );
}

function drawTraining() {
  const epochs = [0, d3.max([...data.scores, ...data.losses], (point) => point.epoch) || 1];
  const place = placeOf("losses");
  if (place && data.losses.length) {
    keepDrawn(place, (width) =>
      Plot.plot({
        width,
        height: Math.max(200, Math.min(280, width * 0.4)),
        marginLeft: 52,
        marginRight: 16,
        marginTop: 28,
        marginBottom: 40,
        ...phaseScales(),
        x: { label: "epochs of training", ticks: width < 420 ? 4 : 8, domain: epochs },
        y: { label: "training loss", grid: true, ticks: 5, zero: true },
        marks: [
          Plot.line(data.losses, { x: "epoch", y: "loss", z: "line", stroke: "phase", strokeWidth: 2 }),
          Plot.dot(data.losses.length > 80 ? [] : data.losses, { x: "epoch", y: "loss", fill: "phase", r: 2.5 }),
          Plot.tip(data.losses, Plot.pointer({ x: "epoch", y: "loss", fontSize: 12, lineHeight: 1.3, title: (point) => `${point.phase}: loss ${point.loss.toPrecision(4)}\nafter ${d3.format(".2~f")(point.epoch)} epochs` })),
        ],
      })
    );
  }
  const scores = placeOf("scores");
  const judged = [...data.watched, ...data.scores];
  if (scores && judged.length) {
    keepDrawn(scores, (width) =>
      Plot.plot({
        width,
        height: 200,
        marginLeft: 52,
        marginRight: 16,
        marginTop: 28,
        marginBottom: 40,
        ...phaseScales(),
        x: { label: "epochs of training", ticks: width < 420 ? 4 : 8, domain: epochs },
        y: scoreAxis(data.score, judged.map((point) => point.score)),
        marks: [
          Plot.line(data.watched, { x: "epoch", y: "score", z: "line", stroke: "phase", strokeWidth: 1.5, strokeOpacity: 0.6 }),
          Plot.dot(data.watched, { x: "epoch", y: "score", fill: "phase", r: 2.5, className: "watched" }),
          Plot.dot(data.scores, { x: "epoch", y: "score", fill: "phase", symbol: "phase", r: 5 }),
          Plot.tip(judged, Plot.pointer({ x: "epoch", y: "score", fontSize: 12, lineHeight: 1.3, title: "words" })),
        ],
      })
    );
  }
}
