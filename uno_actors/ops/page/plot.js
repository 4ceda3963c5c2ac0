// Plots of figures over time, as SVG.

import { h } from "./dom.js";
import { figure } from "./shown.js";

const WIDTH = 480, HEIGHT = 132, LEFT = 44, BOTTOM = 20, TOP = 8, RIGHT = 6;
const hovered = new Map(); // by plot: the share of the width under the pointer

// The least round number of 1, 2, 5, 10, ... that is not below `value`.
function ceiling(value) {
  if (value <= 0) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value - 1e-12);
}

// A plot with its name, its latest values as the legend, and a readout under the pointer.
//   series: [{ name, values, kind }], the kind being one of the colours c1 to c4 and bad
//   times: seconds since 1970; span: seconds that are shown
export function plot({ id, title, times, series, span, format = figure, redraw, hint, least = 0 }) {
  const end = times.length ? times[times.length - 1] : Date.now() / 1000;
  const begin = end - span;
  const x = (time) => LEFT + ((time - begin) / span) * (WIDTH - LEFT - RIGHT);
  const seen = times.map((time, index) => [time, index]).filter(([time]) => time >= begin - 1);
  const most = Math.max(0, ...series.flatMap(({ values }) => seen.map(([, index]) => values[index] ?? 0)));
  const top = Math.max(least, ceiling(most)) || 1;
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
  const pointed = hovered.has(id) && seen.length ? nearest(seen, begin + hovered.get(id) * span) : undefined;
  const last = times.length - 1;
  const shown = pointed ? pointed[1] : last;
  const label = `${title}: ${series.map(({ name, values }) => `${name} ${last < 0 ? "none" : format(values[last])}`).join(", ")}; highest ${format(most)}`;
  const move = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    hovered.set(id, Math.min(1, Math.max(0, share)));
    redraw();
  };
  return h("figure", { class: "plot panel", key: id },
    h("figcaption", {},
      h("h2", { title: hint }, title),
      h("ul", { class: "legend" }, series.map(({ name, values, kind }) =>
        h("li", { class: kind }, h("span", { class: "name" }, name), " ", h("b", {}, shown < 0 ? "–" : format(values[shown])))))),
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label,
      on: { pointermove: move, pointerleave: () => { hovered.delete(id); redraw(); } } },
    [0, top / 2, top].map((value) => [
      h("line", { class: value ? "grid" : "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      h("text", { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, value || value === 0 ? format(value) : ""),
    ]),
    marks(begin, end, span).map((time) => h("text", { x: x(time), y: HEIGHT - 5, "text-anchor": "middle" }, clock(time, span))),
    series.map(({ values, kind }) => pieces(seen, values).map((piece) =>
      h("polyline", { class: kind, points: piece.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }))),
    pointed && [
      h("line", { class: "pointer", x1: x(pointed[0]), x2: x(pointed[0]), y1: TOP, y2: HEIGHT - BOTTOM }),
      series.filter(({ values }) => values[pointed[1]] !== null).map(({ values, kind }) =>
        h("circle", { class: kind, cx: x(pointed[0]), cy: y(values[pointed[1]]), r: 3 })),
    ],
    !times.length && h("text", { class: "none", x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing measured yet")));
}

function nearest(seen, time) {
  return seen.reduce((best, each) => (Math.abs(each[0] - time) < Math.abs(best[0] - time) ? each : best));
}

function pieces(seen, values) {
  const found = [];
  let piece = [];
  for (const [time, index] of seen) {
    const value = values[index];
    if (value === null || value === undefined) {
      if (piece.length) found.push(piece);
      piece = [];
    } else piece.push([time, value]);
  }
  if (piece.length) found.push(piece);
  return found.map((each) => (each.length === 1 ? [each[0], [each[0][0] + 0.5, each[0][1]]] : each));
}

function marks(begin, end, span) {
  const step = span <= 60 ? 15 : span <= 120 ? 30 : span <= 300 ? 60 : 120;
  const found = [];
  for (let time = Math.ceil(begin / step) * step; time <= end; time += step)
    if (time - begin > span * 0.06 && end - time > span * 0.06) found.push(time);
  return found;
}

function clock(time, span) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  return new Date(time * 1000).toLocaleTimeString("en", span <= 120 ? { ...options, second: "2-digit" } : options);
}

// A small line without axes.
export function spark(values, label, kind = "c1") {
  const width = 96, height = 24;
  const known = values.map((value) => value ?? 0);
  const top = Math.max(1, ...known);
  const points = known.map((value, index) =>
    `${((index / Math.max(1, known.length - 1)) * width).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  return h("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    h("polyline", { class: kind, points: points.join(" ") }));
}
