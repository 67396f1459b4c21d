/* Several runs: their outcomes, their frontiers and their layers. */
"use strict";

const runColors = { domain: data.runs, range: data.runs.map((run, number) => `var(--run-${number % 8})`) };

function costAxis(width, shares) {
  return { label: "share of the multiply-adds", tickFormat: percent, domain: [Math.min(d3.min(shares), 0.95) * 0.92, 1.02], ticks: width < 420 ? 5 : 8 };
}

function drawOutcomes() {
  const place = placeOf("outcomes");
  if (!place || !data.outcomes.length) return;
  const withError = data.outcomes.filter((run) => run.error !== null);
  const values = data.outcomes.flatMap((run) => [run.score - (run.error ?? 0), run.score + (run.error ?? 0)]);
  if (data.before !== null) values.push(data.before);
  keepDrawn(place, (width) =>
    Plot.plot({
      width,
      height: 280,
      marginLeft: 52,
      marginRight: 16,
      marginTop: 28,
      marginBottom: 40,
      color: runColors,
      x: costAxis(width, data.outcomes.map((run) => run.share)),
      y: { ...scoreAxis(data.score, values), label: `${data.score.name} (test)`, domain: d3.extent(values) },
      marks: [
        data.before === null ? null : Plot.ruleY([data.before], { stroke: "var(--dense)", strokeDasharray: "5 4" }),
        Plot.ruleX(withError, { x: "share", y1: (run) => run.score - run.error, y2: (run) => run.score + run.error, stroke: "run", strokeWidth: 2 }),
        Plot.dot(data.outcomes, { x: "share", y: "score", fill: "run", r: 6 }),
        ...[1, -1].map((side) =>
          Plot.text(data.outcomes, {
            filter: (run) => (run.share > 0.75 ? -1 : 1) === side,
            x: "share",
            y: "score",
            text: (run) => shortened(run.run, 28),
            dx: 12 * side,
            textAnchor: side > 0 ? "start" : "end",
            fill: "var(--ink)",
            stroke: "var(--panel)",
            strokeWidth: 5,
          })
        ),
        Plot.tip(data.outcomes, Plot.pointer({ x: "share", y: "score", title: (run) => `${run.run}\n${run.words}`, lineWidth: 22, fontSize: 12, lineHeight: 1.3 })),
      ],
    })
  );
}

function drawFrontiers() {
  const place = placeOf("frontiers");
  if (!place || !data.points.length) return;
  const walked = data.points.filter((point) => point.phase !== "finetune");
  keepDrawn(place, (width) =>
    Plot.plot({
      width,
      height: Math.max(260, Math.min(400, width * 0.5)),
      marginLeft: 52,
      marginRight: 16,
      marginTop: 28,
      marginBottom: 40,
      color: runColors,
      symbol: phaseScales().symbol,
      r: { type: "identity" },
      x: costAxis(width, data.points.map((point) => point.share)),
      y: scoreAxis(data.score, data.points.map((point) => point.score)),
      marks: [
        Plot.line(walked, { x: "share", y: "score", z: "run", stroke: "run", strokeWidth: 1.5, strokeOpacity: 0.7 }),
        Plot.dot(data.points, { x: "share", y: "score", fill: "run", symbol: "phase", r: (point) => (point.phase === "finetune" ? 5.5 : 4) }),
        Plot.tip(data.points, Plot.pointer({ x: "share", y: "score", title: (point) => `${point.run}: ${point.name}\n${point.words}`, lineWidth: 22, fontSize: 12, lineHeight: 1.3 })),
      ],
    })
  );
}

function drawStrips() {
  data.runs.forEach((run, number) => {
    const place = placeOf(`layers-${number}`);
    const layers = (data.layers[run] ?? []).map((layer, place) => ({ ...layer, number: place }));
    if (!place || !layers.length) return;
    keepDrawn(place, (width) => stripChart(layers, width, "after", `var(--run-${number % 8})`));
  });
}

drawOutcomes();
drawFrontiers();
drawStrips();
document.documentElement.dataset.drawn = "yes";
