/* A bench: for each network and number of epochs all methods by what they cost and what they are worth. */
"use strict";

function drawGroup(points, number) {
  const place = placeOf(`group-${number}`);
  if (!place || !points.length) return;
  const cut = points.filter((point) => point.budget);
  const whole = points.filter((point) => !point.budget);
  const values = points.flatMap((point) => [point.low, point.high]);
  const words = (point) => `${point.method}\n${data.score.name} ${d3.format(data.score.isShare ? ".1%" : ".4~g")(point.score)} at ${finePercent(point.share)} of the multiply-adds (${point.seeds} seed${point.seeds > 1 ? "s" : ""})`;
  keepDrawn(place, (width) =>
    Plot.plot({
      width,
      height: Math.max(260, Math.min(420, width * 0.5)),
      marginLeft: 52,
      marginRight: 16,
      marginTop: 28,
      marginBottom: 40,
      color: { domain: data.methods, range: data.methods.map((name, place) => `var(--run-${place % 8})`) },
      x: { label: "share of the multiply-adds", tickFormat: percent, domain: [Math.min(d3.min(points, (point) => point.share), 0.95) * 0.92, 1.02], ticks: width < 420 ? 5 : 8 },
      y: { ...scoreAxis(data.score, values), label: `${data.score.name} (test)`, domain: d3.extent(values) },
      marks: [
        Plot.ruleY(whole, { y: "score", stroke: "method", strokeDasharray: "5 4" }),
        Plot.line(cut, { x: "share", y: "score", z: "method", stroke: "method", strokeWidth: 1.5, strokeOpacity: 0.7, sort: "share" }),
        Plot.ruleX(cut, { x: "share", y1: "low", y2: "high", stroke: "method", strokeWidth: 2 }),
        Plot.dot(points, { x: "share", y: "score", fill: "method", r: 5 }),
        Plot.tip(points, Plot.pointer({ x: "share", y: "score", title: words, lineWidth: 22, fontSize: 12, lineHeight: 1.3 })),
      ],
    })
  );
}

data.groups.forEach(drawGroup);
document.documentElement.dataset.drawn = "yes";
