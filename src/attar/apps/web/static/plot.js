// Rate-distortion curves as SVG: a mark of its own for each codec, points that keys and mouse reach.
import { svg } from "./charts.js";

/**
 * @typedef {{codec: string, key: string, x: number, y: number, words: string}} Dot
 * @typedef {{codec: string, colour: number, dots: Dot[]}} Line
 * @typedef {{x: string, y: string, log: boolean, width: number, height: number}} Frame
 */

const MARKS = [
  "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
  "M-4.5 -4.5h9v9h-9z",
  "M0 -6L5.5 4.5H-5.5Z",
  "M0 -6.5L6 0L0 6.5L-6 0Z",
  "M0 6L5.5 -4.5H-5.5Z",
  "M-5 -2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",
  "M0 -6L5.7 -1.9L3.5 4.9H-3.5L-5.7 -1.9Z",
  "M-5 -5L0 -2.5L5 -5L2.5 0L5 5L0 2.5L-5 5L-2.5 0Z",
];
export const MARGIN = { left: 58, right: 18, top: 14, bottom: 50 };
const NICE = [1, 2, 5, 10];
export const COLOURS = MARKS.length;

/**
 * @param {Line[]} lines
 * @param {Frame} frame
 * @param {string} title
 */
export function plot(lines, frame, title) {
  const dots = lines.flatMap((line) => line.dots);
  const { width, height } = frame;
  const drawn = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": title });
  const across = scale(dots.map((dot) => dot.x), [MARGIN.left, width - MARGIN.right], frame.log, width / 90);
  const up = scale(dots.map((dot) => dot.y), [height - MARGIN.bottom, MARGIN.top], false, height / 40, false);
  drawn.append(axes(across, up, frame));
  for (const { codec, colour, dots: own } of lines) {
    const group = svg("g", { class: `line c${colour}` });
    const path = own.map(({ x, y }, at) => `${at ? "L" : "M"}${across.at(x).toFixed(1)} ${up.at(y).toFixed(1)}`).join("");
    if (own.length > 1) group.append(svg("path", { class: "curve", d: path }));
    for (const dot of own) {
      const point = svg("g", { class: "point", role: "link", tabindex: -1, "aria-label": dot.words, "data-key": dot.key, transform: `translate(${across.at(dot.x).toFixed(1)} ${up.at(dot.y).toFixed(1)})` });
      point.append(svg("circle", { class: "halo", r: 11 }), svg("path", { class: "mark", d: MARKS[colour] }));
      group.append(point);
    }
    group.setAttribute("data-codec", codec);
    drawn.append(group);
  }
  return drawn;
}

/** The mark of a codec, for the legend. @param {number} colour */
export function mark(colour) {
  const drawn = svg("svg", { class: `legend c${colour}`, viewBox: "-8 -8 16 16", width: 18, height: 18, "aria-hidden": "true" });
  drawn.append(svg("path", { class: "mark", d: MARKS[colour] }));
  return drawn;
}

/**
 * The point to which an arrow key leads: along its curve, or to the nearest of the next curve.
 * @param {Line[]} lines
 * @param {string} key of the point that is left
 * @param {string} arrow
 * @returns {Dot | undefined}
 */
export function neighbour(lines, key, arrow) {
  const drawn = lines.filter((line) => line.dots.length);
  const row = drawn.findIndex((line) => line.dots.some((dot) => dot.key === key));
  if (row < 0) return undefined;
  const { dots } = drawn[row];
  const at = dots.findIndex((dot) => dot.key === key);
  if (arrow === "ArrowRight") return dots[at + 1];
  if (arrow === "ArrowLeft") return dots[at - 1];
  if (arrow === "Home") return dots[0];
  if (arrow === "End") return dots.at(-1);
  const next = drawn[row + (arrow === "ArrowDown" ? 1 : -1)];
  return next && nearest(next.dots, dots[at].x);
}

/** The dot nearest to a rate. @param {Dot[]} dots @param {number} x @returns {Dot | undefined} */
export const nearest = (dots, x) => dots.toSorted((a, b) => Math.abs(Math.log(a.x / x)) - Math.abs(Math.log(b.x / x)))[0];

/** A drawn plot as a file that stands alone. @param {SVGElement} drawn */
export function toFile(drawn) {
  const copy = /** @type {SVGElement} */ (drawn.cloneNode(true));
  const [from, to] = [drawn, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  to.forEach((element, at) => {
    const style = getComputedStyle(from[at]);
    for (const name of ["fill", "stroke", "stroke-width", "font-family", "font-size"]) element.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["tabindex", "role", "class", "data-key", "data-codec"]) element.removeAttribute(name);
  });
  for (const halo of copy.querySelectorAll("circle")) halo.remove();
  const paper = getComputedStyle(/** @type {Element} */ (drawn.closest(".card"))).backgroundColor;
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: paper }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

/**
 * From values to places, with the places of round numbers.
 * @param {number[]} values
 * @param {[number, number]} span
 * @param {boolean} log
 * @param {number} most ticks
 * @param {boolean} [fromZero] where the values come near it
 */
export function scale(values, [start, end], log, most, fromZero = !log) {
  const shape = log ? Math.log10 : (/** @type {number} */ value) => value;
  let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0.1, 1];
  if (fromZero && low > 0 && low < 0.5 * high) low = 0;
  if (low === high) [low, high] = [low * 0.9, high * 1.1];
  const room = 0.04 * (shape(high) - shape(low));
  const [from, to] = [low === 0 ? 0 : shape(low) - room, shape(high) + room];
  const ticks = log ? logTicks(10 ** from, 10 ** to) : evenTicks(from, to, most);
  return { at: (/** @type {number} */ value) => start + ((shape(value) - from) / (to - from)) * (end - start), ticks };
}

/** @param {number} from @param {number} to @param {number} most */
function evenTicks(from, to, most) {
  const rough = (to - from) / Math.max(2, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (NICE.find((nice) => nice * power >= rough) ?? 10);
  const first = Math.ceil(from / step);
  return Array.from({ length: Math.floor(to / step) - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(10)));
}

/** @param {number} from @param {number} to */
function logTicks(from, to) {
  const powers = Array.from({ length: 12 }, (_, place) => 10 ** (place - 6));
  const ticks = powers.flatMap((power) => [1, 2, 5].map((nice) => Number((nice * power).toPrecision(6))));
  return ticks.filter((tick) => tick >= from && tick <= to);
}

/** @typedef {ReturnType<typeof scale>} Scale */

/** @param {Scale} across @param {Scale} up @param {Frame} frame */
export function axes(across, up, { width, height, x, y }) {
  const group = svg("g", { class: "axes", "aria-hidden": "true" });
  const bottom = height - MARGIN.bottom;
  for (const tick of across.ticks) {
    const at = across.at(tick);
    group.append(svg("line", { x1: at, x2: at, y1: MARGIN.top, y2: bottom }), text(at, bottom + 18, String(tick), "middle"));
  }
  for (const tick of up.ticks) {
    const at = up.at(tick);
    group.append(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }), text(MARGIN.left - 8, at + 4, String(tick), "end"));
  }
  const middle = (MARGIN.top + bottom) / 2;
  const title = text(0, 0, y, "middle");
  title.setAttribute("transform", `translate(14 ${middle}) rotate(-90)`);
  group.append(title, text((MARGIN.left + width - MARGIN.right) / 2, height - 8, x, "middle"));
  return group;
}

/** @param {number} x @param {number} y @param {string} words @param {string} anchor */
function text(x, y, words, anchor) {
  const element = svg("text", { x, y, "text-anchor": anchor });
  element.textContent = words;
  return element;
}
