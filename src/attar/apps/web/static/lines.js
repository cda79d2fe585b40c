// Numbers over the epochs of a run, as lines, with words for those who do not see them.
import { svg } from "./charts.js";
import { MARGIN, axes, scale } from "./plot.js";

/**
 * @typedef {[number, number]} At
 * @typedef {{name: string, kind: "own" | "other" | "quiet", points: At[]}} Series
 * @typedef {{x: string, y: string, width: number, height: number, marked?: At | null, cursor?: number | null}} Look
 */

const MOST_MARKED = 40;
const STEEP = 20; // from the least to the most, beyond which only a logarithm shows both ends

/**
 * @param {Series[]} series
 * @param {Look} look
 * @param {string} words
 */
export function lines(series, look, words) {
  const { width, height } = look;
  const points = series.flatMap((one) => one.points);
  const values = points.map(([, y]) => y);
  const log = Math.min(...values) > 0 && Math.max(...values) > STEEP * Math.min(...values);
  const across = scale(points.map(([x]) => x), [MARGIN.left, width - MARGIN.right], false, width / 90);
  const up = scale(values, [height - MARGIN.bottom, MARGIN.top], log, height / 50);
  const drawn = svg("svg", { class: "plot lines", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words });
  drawn.append(axes(across, up, { ...look, log }));
  if (look.cursor) drawn.append(svg("line", { class: "cursor", x1: across.at(look.cursor), x2: across.at(look.cursor), y1: MARGIN.top, y2: height - MARGIN.bottom }));
  for (const { name, kind, points: own } of series) {
    const group = svg("g", { class: `series ${kind}` });
    const path = own.map(([x, y], at) => `${at ? "L" : "M"}${across.at(x).toFixed(1)} ${up.at(y).toFixed(1)}`).join("");
    group.append(svg("path", { d: path }));
    if (own.length <= MOST_MARKED) for (const [x, y] of own) group.append(svg("circle", { cx: across.at(x), cy: up.at(y), r: 2.5 }));
    if (kind === "quiet" && own.length) group.append(label(name, across.at(own[own.length - 1][0]), up.at(own[own.length - 1][1]) - 8));
    drawn.append(group);
  }
  if (look.marked) drawn.append(svg("circle", { class: "best", cx: across.at(look.marked[0]), cy: up.at(look.marked[1]), r: 6 }));
  return drawn;
}

/** @param {string} name @param {number} x @param {number} y */
function label(name, x, y) {
  const text = svg("text", { x, y, "text-anchor": "end" });
  text.textContent = name;
  return text;
}

/** What the kinds of lines mean. @param {[Series["kind"], string][]} kinds */
export function key(kinds) {
  const row = document.createElement("p");
  row.className = "row key small muted";
  for (const [kind, words] of kinds) {
    const line = svg("svg", { class: "lines", viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" });
    const group = svg("g", { class: `series ${kind}` });
    group.append(svg("path", { d: "M0 4H28" }));
    line.append(group);
    const one = document.createElement("span");
    one.append(line, ` ${words}`);
    row.append(one);
  }
  return row;
}
