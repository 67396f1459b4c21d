/* What a scan proposes: how much the loss grows at what cost, and the scores where they were looked at. */
"use strict";

function drawScan() {
  if (!data.path.length) return;
  const choice = choiceAmong(data.path, data.path[data.path.length - 1]);
  const growth = { label: "the loss grows by", grid: true, nice: true, ticks: 5, zero: true, tickFormat: "+.3~g" };
  const networkOf = (mark) => data.path[mark.number];
  for (const [name, value, axis] of [["losses", "loss", growth], ["scores", "score", scoreAxis(data.score, data.scores.map((mark) => mark.value))]]) {
    const place = placeOf(name);
    if (place) drawChoosable(place, (width) => scanChart(width, data[name], axis), choice, value, networkOf);
  }
}

function scanChart(width, marks, axis) {
  const lines = ["width", "depth", "finetune"].map((phase) => marks.filter((mark) => mark.phase === phase || mark.phase === "dense").map((mark) => ({ ...mark, line: phase }))).filter((line) => line.length > 1);
  return Plot.plot({
    width,
    height: Math.max(240, Math.min(360, width * 0.45)),
    marginLeft: 52,
    marginRight: 16,
    marginTop: 28,
    marginBottom: 40,
    ...phaseScales(),
    x: { label: "share of the multiply-adds", tickFormat: percent, domain: [Math.min(d3.min(marks, (mark) => mark.share), 0.95) * 0.92, 1.02], ticks: width < 420 ? 5 : 8 },
    y: axis,
    marks: [
      Plot.line(lines.flat(), { x: "share", y: "value", z: "line", stroke: "line", strokeWidth: 1.5, strokeOpacity: 0.6 }),
      Plot.dot(marks, { x: "share", y: "value", fill: "phase", symbol: "phase", r: 5.5, className: "points" }),
      Plot.tip(marks, Plot.pointer({ x: "share", y: "value", title: (mark) => `${mark.name}\n${mark.words}`, lineWidth: 22, fontSize: 12, lineHeight: 1.3, maxRadius: 60 })),
    ],
  });
}

drawScan();
document.documentElement.dataset.drawn = "yes";
