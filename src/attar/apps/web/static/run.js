// One training run: where it is, its curves, what it regenerates, how it was started.
import * as api from "./api.js";
import { layersOf } from "./layers.js";
import { key, lines } from "./lines.js";
import { code, h, sentence, shellWord } from "./ui.js";

/**
 * @typedef {{epoch: number, step: number | null, val_loss: number, val_psnr: number | null, val_ssim: number | null,
 *   val_bytes: number | null}} Best
 * @typedef {{id: string, name: string, state: string, fault: string | null, updated: number, dataset: string | null,
 *   epoch: number, epochs: number | null, step: number, steps: number | null, loss: number | null,
 *   psnr: number | null, ssim: number | null, steps_per_second: number | null, seconds_left: number | null,
 *   best: Best | null, samples: number[]}} RunRow
 * @typedef {Record<string, number | null>} Line
 * @typedef {RunRow & {config: Record<string, unknown>, model: unknown, history: Line[], history_rows: number,
 *   rivals: Record<string, [number, number][]>}} RunWhole
 * @typedef {import("./lines.js").At} At
 * @typedef {{column: string, title: string, y: string, unit: string, digits: number, least: boolean | null}} Chart
 */

/** @type {Chart[]} */
const CHARTS = [
  { column: "loss", title: "Loss", y: "", unit: "", digits: 5, least: true },
  { column: "psnr", title: "PSNR, dB", y: "", unit: " dB", digits: 2, least: false },
  { column: "ssim", title: "SSIM", y: "", unit: "", digits: 4, least: false },
  { column: "rate", title: "Rate, bits per pixel", y: "", unit: " bits per pixel", digits: 4, least: null },
];
const PLAIN = ["epoch", "step", "seconds", "learning_rate", "bytes"]; // columns that are no measure of their own
const STATES = { training: "\u25cf training", finished: "\u2713 finished", interrupted: "\u25a0 interrupted", failed: "\u2717 failed", unreadable: "\u2717 unreadable" };
const HEIGHT = 230;

/** @param {RunRow} row */
export const stateWords = ({ state }) => STATES[/** @type {keyof STATES} */ (state)] ?? state;

export class Run {
  #work = new api.Latest();
  /** @type {RunWhole | null} */
  #whole = null;
  #listening = new AbortController();
  #open = new Set();

  name = h("h2", {});
  state = h("p", { className: "state", id: "state" });
  fault = h("p", { className: "fault", role: "alert" });
  bar = h("progress", { id: "progress", max: 1 });
  told = h("p", { className: "muted small number", id: "told" });
  charts = h("div", { className: "two", id: "charts" });
  slider = h("input", { type: "range", className: "split", id: "epoch", min: "0", step: "1" });
  at = h("output", { className: "small number", id: "at" });
  picture = h("img", { id: "sample" });
  samples = h("section", { className: "card", "aria-label": "Samples", hidden: true });
  rest = h("div", { className: "screen" });

  /**
   * @param {RunRow} row
   * @param {number | null} epoch whose samples are shown; null: the last ones
   * @param {(epoch: number | null) => void} moved
   */
  constructor(row, epoch, moved) {
    this.id = row.id;
    this.row = row;
    this.epoch = epoch;
    this.bar.setAttribute("aria-label", "Steps taken");
    this.slider.setAttribute("aria-label", "Epoch whose samples are shown");
    this.slider.addEventListener("input", () => {
      const last = Number(this.slider.value) === this.row.samples.length - 1;
      this.epoch = last ? null : this.row.samples[Number(this.slider.value)];
      moved(this.epoch);
      this.#sample();
      this.#draw();
    });
    this.samples.append(
      h("h2", {}, "What it regenerates"), this.slider, this.at,
      h("div", { className: "scroll samples-of-run", tabIndex: 0, role: "group", "aria-label": "Samples" }, this.picture));
    this.element = h("div", { className: "screen", id: "run" },
      h("section", { className: "card", "aria-label": "The run" }, h("div", { className: "row spread" }, this.name, this.state), this.fault, this.bar, this.told),
      this.charts, this.samples, this.rest);
    addEventListener("resize", () => this.#draw(), { signal: this.#listening.signal });
  }

  leave() {
    this.#work.stop();
    this.#listening.abort();
  }

  /** Take in what the run says now; ask for the whole when an epoch has ended. @param {RunRow} row */
  update(row) {
    const grown = !this.#whole || ["epoch", "updated", "state", "samples"].some((key) => String(row[/** @type {keyof RunRow} */ (key)]) !== String(this.row[/** @type {keyof RunRow} */ (key)]));
    this.row = row;
    this.name.textContent = row.name;
    this.state.textContent = stateWords(row);
    this.state.className = `state ${row.state}`;
    this.fault.textContent = row.fault ?? "";
    this.bar.hidden = !row.steps;
    this.bar.value = row.steps ? row.step / row.steps : 0;
    this.told.textContent = progressWords(row);
    if (grown) this.#ask();
  }

  async #ask() {
    try {
      const whole = await this.#work.run((signal) => api.run(this.id, signal));
      if (!whole) return;
      this.#whole = whole;
      this.#draw();
      this.#sample();
      this.#tables();
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  #draw() {
    if (!this.#whole) return;
    const { history, best } = this.#whole;
    this.charts.hidden = !history.length;
    const width = Math.max(260, columnWidth(this.charts) - 46);
    this.charts.replaceChildren(...chartsOf(history).map((chart) => {
      const words = chartWords(chart, history);
      const marked = best && typeof history[0][`val_${chart.column}`] === "number" ? at(history, `val_${chart.column}`).find(([epoch]) => epoch === best.epoch) : null;
      const drawn = lines([
        { name: "training", kind: "other", points: at(history, chart.column) },
        { name: "validation", kind: "own", points: at(history, `val_${chart.column}`) },
      ], { x: "epoch", y: chart.y, width, height: HEIGHT, marked, cursor: this.epoch }, `${chart.title}: ${words}`);
      return h("section", { className: "card chart", "aria-label": chart.title }, h("h2", {}, chart.title), drawn, h("p", { className: "small muted number" }, words));
    }), ...this.#ratedistortion(width));
    if (history.length) this.charts.append(key([["own", "validation images, ringed at the least loss"], ["other", "training images, in passing"]]));
  }

  /** @param {number} width */
  #ratedistortion(width) {
    const { history, rivals } = /** @type {RunWhole} */ (this.#whole);
    const measured = history.filter((row) => typeof row.rd_bpp_0 === "number");
    if (!measured.length) return [];
    const points = (/** @type {Line} */ row) => Object.keys(row).filter((name) => name.startsWith("rd_bpp_")).map((name) => /** @type {At} */ ([row[name], row[name.replace("bpp", "psnr")]])).filter((pair) => pair.every((value) => typeof value === "number"));
    const last = measured[measured.length - 1];
    const chosen = measured.find((row) => row.epoch === this.epoch) ?? last;
    const own = points(chosen);
    const words = `At epoch ${chosen.epoch}, from ${own[0][1].toFixed(1)} dB at ${own[0][0].toFixed(2)} bits per pixel to ${own[own.length - 1][1].toFixed(1)} dB at ${own[own.length - 1][0].toFixed(2)}`;
    const others = Object.entries(rivals).filter(([, dots]) => dots.length).map(([name, dots]) => ({ name, kind: /** @type {"quiet"} */ ("quiet"), points: dots }));
    const drawn = lines([...others, { name: "the run", kind: "own", points: own }], { x: "bits per pixel", y: "PSNR, dB", width, height: HEIGHT }, words);
    const beside = others.length ? `; beside it, in gray, files of ${others.map(({ name }) => name).join(" and ")}` : "";
    return [h("section", { className: "card chart", "aria-label": "Rate and distortion" }, h("h2", {}, "Rate and distortion"), drawn, h("p", { className: "small muted number" }, `${words}${beside}.`))];
  }

  #sample() {
    const { samples, id, name, updated } = this.row;
    this.samples.hidden = !samples.length;
    if (!samples.length) return;
    const place = this.epoch === null ? samples.length - 1 : Math.max(0, samples.findIndex((epoch) => epoch >= /** @type {number} */ (this.epoch)));
    this.slider.max = String(samples.length - 1);
    this.slider.value = String(place);
    this.slider.disabled = samples.length < 2;
    const epoch = samples[place];
    const row = this.#whole?.history.find((line) => line.epoch === epoch);
    const numbers = row ? ` (step ${(row.step ?? 0).toLocaleString("en")}): ${row.val_psnr?.toFixed(2)} dB, SSIM ${row.val_ssim?.toFixed(4)} on all validation images` : "";
    this.at.textContent = `Epoch ${epoch}${numbers}`;
    this.slider.setAttribute("aria-valuetext", `Epoch ${epoch}`);
    const source = `api/runs/${encodeURIComponent(id)}/samples/${epoch}?${updated}`;
    if (this.picture.getAttribute("src") !== source) this.picture.src = source;
    this.picture.alt = `Validation images, what ${name} gave back after epoch ${epoch}, and the difference`;
  }

  #tables() {
    const { config, model, history, history_rows: all } = /** @type {RunWhole} */ (this.#whole);
    const columns = ["epoch", "step", "val_loss", "val_psnr", "val_ssim", "val_rate", "val_bytes"].filter((name) => history.some((row) => name in row));
    const rows = history.map((row) => h("tr", {}, ...columns.map((name) => h("td", { className: "number" }, row[name] === null || row[name] === undefined ? "\u2013" : String(row[name])))));
    const head = h("tr", {}, ...columns.map((name) => h("th", { scope: "col", className: "number" }, name)));
    const options = h("dl", { className: "facts" });
    for (const [name, value] of Object.entries(config)) options.append(h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value === null ? "\u2013" : String(value)));
    const table = h("div", { className: "scroll tall", tabIndex: 0, role: "group", "aria-label": "Numbers of each epoch" }, h("table", { id: "history" }, h("thead", {}, head), h("tbody", {}, ...rows)));
    const words = all > history.length ? `${history.length} of its ${all} epochs as a table` : `Its ${all} epochs as a table`;
    this.rest.replaceChildren(h("section", { className: "card", "aria-label": "More" },
      all ? this.#details("epochs", h("details", {}, h("summary", {}, words), table)) : null,
      this.#details("options", h("details", {}, h("summary", {}, "How it was started"), options)),
      this.#details("layers", layersOf(model)),
      code(commands(this.row), "the commands")));
  }

  /** What was open stays open when the run is shown anew. @param {string} name @param {HTMLDetailsElement} details */
  #details(name, details) {
    details.open = this.#open.has(name);
    details.addEventListener("toggle", () => (details.open ? this.#open.add(name) : this.#open.delete(name)));
    return details;
  }
}

/** @param {RunRow} row */
function commands({ name, state, epoch }) {
  const folder = shellWord(name);
  const again = ["interrupted", "failed"].includes(state) ? [`attar train --resume --run-dir ${folder}`] : [];
  const made = epoch ? [`attar export --ckpt-path ${folder}/checkpoints/best.npz --save-path mine.attarmodel`] : [];
  return [...again, ...made, `attar serve --runs ${folder}`].join("\n");
}

/** @param {RunRow} row */
function progressWords({ step, steps, epoch, epochs, loss, psnr, ssim, steps_per_second: speed, seconds_left: left }) {
  const words = [`step ${step.toLocaleString("en")} of ${steps?.toLocaleString("en") ?? "?"}`, `${epoch} of ${epochs ?? "?"} epochs`];
  if (speed !== null) words.push(`${speed.toPrecision(3)} steps/s`);
  if (left !== null) words.push(`${duration(left)} left`);
  if (loss !== null) words.push(`this epoch so far: loss ${loss.toPrecision(4)}${psnr === null ? "" : `, ${psnr.toFixed(2)} dB`}${ssim === null ? "" : `, SSIM ${ssim.toFixed(4)}`}`);
  return words.join(" \u00b7 ");
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Epochs and a column's numbers, where there are any. @param {Line[]} history @param {string} column @returns {At[]} */
const at = (history, column) => history.flatMap((row) => (typeof row[column] === "number" && typeof row.epoch === "number" ? [/** @type {At} */ ([row.epoch, row[column]])] : []));

/** The known charts, and one for every other measure that the history has. @param {Line[]} history @returns {Chart[]} */
function chartsOf(history) {
  const columns = Object.keys(history[0] ?? {}).filter((name) => !PLAIN.includes(name) && !name.startsWith("val_") && !name.startsWith("rd_"));
  const known = CHARTS.filter(({ column }) => columns.includes(column) || at(history, `val_${column}`).length);
  const others = columns.filter((name) => CHARTS.every(({ column }) => column !== name) && at(history, name).length);
  return [...known, ...others.map((column) => ({ column, title: `${column[0].toUpperCase()}${column.slice(1).replaceAll("_", " ")}`, y: "", unit: "", digits: 4, least: null }))];
}

/** @param {Chart} chart @param {Line[]} history */
function chartWords({ column, unit, digits, least }, history) {
  const points = at(history, `val_${column}`);
  if (!points.length) {
    const last = at(history, column).at(-1);
    return last ? `${last[1].toFixed(digits)}${unit} in epoch ${last[0]}, training images` : "not recorded";
  }
  const [epoch, value] = points[points.length - 1];
  const now = `${value.toFixed(digits)}${unit} after epoch ${epoch}`;
  if (least === null || points.length < 2) return now;
  const [when, best] = points.reduce((a, b) => ((least ? b[1] < a[1] : b[1] > a[1]) ? b : a));
  return `${now}; best ${best.toFixed(digits)}${unit} at epoch ${when}`;
}

/** @param {HTMLElement} grid */
function columnWidth(grid) {
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").map(Number.parseFloat);
  return columns[0] || grid.clientWidth || 480;
}
