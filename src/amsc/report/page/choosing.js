/* One network among several: by a slider over the target, or by a click on a chart. */
"use strict";

/* The choice among `points`, which go from the dearest to the cheapest. Whoever follows it hears of each new one. */
function choiceAmong(points, first) {
  const slider = document.getElementById("target");
  const followers = [];
  const choice = {
    chosen: first,
    follow(show) {
      followers.push(show);
      show(choice.chosen);
    },
    choose(point, moveSlider) {
      choice.chosen = point;
      if (moveSlider) slider.value = Math.ceil(point.share * 1000) / 10;
      const wanted = `${d3.format(".1f")(slider.value)}%`;
      document.getElementById("target-value").textContent = wanted;
      document.getElementById("readout").textContent = `${point.name}: ${point.words}.`;
      slider.setAttribute("aria-valuetext", `at most ${wanted} of the multiply-adds: ${point.name}, ${point.words}`);
      for (const show of followers) show(point);
    },
  };
  let waiting = false;
  slider.addEventListener("input", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      choice.choose(dearestWithin(points, Number(slider.value) / 100), false);
    });
  });
  choice.choose(first, true);
  return choice;
}

/* The network that makes most of a target: of those that keep to it the dearest, of equal ones the last. */
function dearestWithin(points, share) {
  const within = points.filter((point) => point.share <= share + 1e-6);
  if (!within.length) return points[points.length - 1];
  const equals = within.filter((point) => point.macs === within[0].macs);
  return equals[equals.length - 1];
}

/* A chart whose marks can be clicked, with a ring around the choice; `pointOf` gives the network of a mark. */
function drawChoosable(place, draw, choice, value, pointOf = (point) => point) {
  let mark = () => {};
  keepDrawn(place, (width) => {
    const chart = draw(width);
    mark = markerOn(chart, value);
    mark(choice.chosen);
    chart.addEventListener("click", () => {
      if (chart.value) choice.choose(pointOf(chart.value), true);
    });
    return chart;
  });
  place.addEventListener("pointerdown", (event) => event.stopPropagation(), { capture: true }); // a tip is not held
  choice.follow((point) => mark(point));
}

/* A ring that can be put around one point of a chart; a point without the value has none. */
function markerOn(chart, value) {
  const x = chart.scale("x");
  const y = chart.scale("y");
  const ring = d3.select(chart.matches("svg") ? chart : chart.querySelector("svg")).append("circle").attr("class", "selected").attr("r", 10);
  return (point) => {
    const isThere = point[value] !== null;
    ring.attr("visibility", isThere ? "visible" : "hidden");
    if (isThere) ring.attr("cx", x.apply(point.share)).attr("cy", y.apply(point[value]));
  };
}
