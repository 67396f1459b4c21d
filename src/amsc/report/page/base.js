/* What all charts share: the data of the page, sizes, colours, and when to draw again. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

const PHASES = {
  dense: { color: "var(--dense)", symbol: "circle" },
  depth: { color: "var(--depth)", symbol: "square" },
  width: { color: "var(--width)", symbol: "circle" },
  finetune: { color: "var(--finetune)", symbol: "diamond" },
  end: { color: "var(--end)", symbol: "diamond" },
};

const percent = d3.format(".0%");
const finePercent = d3.format(".1%");

function phaseScales() {
  const domain = Object.keys(PHASES);
  return {
    color: { domain, range: domain.map((phase) => PHASES[phase].color) },
    symbol: { domain, range: domain.map((phase) => PHASES[phase].symbol) },
  };
}

function scoreAxis(score, values) {
  const spread = d3.max(values) - d3.min(values);
  return {
    label: `${score.name} (validation)`,
    tickFormat: score.isShare ? (spread > 0.05 ? percent : finePercent) : d3.format(".3~g"),
    nice: true,
    grid: true,
    ticks: 5,
  };
}

/* Draws into `place` as wide as it is, now and whenever that changes; `draw(width)` gives an element. */
function keepDrawn(place, draw) {
  let drawn = 0;
  const again = () => {
    const style = getComputedStyle(place);
    const width = Math.floor(place.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
    if (width <= 0 || width === drawn) return;
    drawn = width;
    const figure = draw(width);
    const charts = figure.matches("svg") ? [figure] : figure.querySelectorAll("svg");
    for (const chart of charts) chart.setAttribute("aria-hidden", "true");
    place.replaceChildren(figure);
  };
  again();
  new ResizeObserver(() => requestAnimationFrame(again)).observe(place);
}

function placeOf(name) {
  return document.querySelector(`[data-chart="${name}"]`);
}

function shortened(name, most) {
  return name.length > most ? `…${name.slice(1 - most)}` : name;
}

/* The longest names that leave most of the width to the bars. */
function namesFor(width, names) {
  const most = Math.max(8, Math.floor((width * 0.38) / 6.6));
  return { most, margin: Math.ceil(Math.min(most, d3.max(names, (name) => name.length)) * 6.6) + 14 };
}
