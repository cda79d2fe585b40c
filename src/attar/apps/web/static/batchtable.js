// The table of a batch: a row for each file, sorted by any column.
import { h, shown } from "./ui.js";

/**
 * @typedef {{file: File, place: number, state: "waiting" | "running" | "done" | "failed", fault: string,
 *   row: import("./api.js").Conversion | null, made: Blob | null, asked: string, name: string}} Job
 * @typedef {{title: string, value: (job: Job) => string | number | null, words: (job: Job) => string, text?: boolean}} Column
 */

const STATES = { waiting: "\u25cb waiting", running: "\u25d4 running", done: "\u2713 done", failed: "\u2717 failed" };
const ORDER = Object.keys(STATES);

/** @param {import("./api.js").Conversion["psnr"] | undefined} value PSNR, endless where nothing was lost */
const ratio = (value) => (value === "identical" ? Number.POSITIVE_INFINITY : (value ?? null));

/** @type {Column[]} */
const COLUMNS = [
  { title: "Name", value: ({ file }) => file.name, words: ({ file }) => file.name, text: true },
  { title: "State", value: ({ state }) => ORDER.indexOf(state), words: ({ state, fault }) => `${STATES[state]}${fault ? `: ${fault}` : ""}`, text: true },
  { title: "Before", value: ({ file }) => file.size, words: ({ file }) => file.size.toLocaleString("en") },
  { title: "After", value: ({ row }) => row?.bytes ?? null, words: ({ row }) => row?.bytes.toLocaleString("en") ?? "" },
  { title: "Saved", value: ({ row }) => row?.saved_percent ?? null, words: ({ row }) => (row ? `${row.saved_percent.toFixed(1)} %` : "") },
  { title: "PSNR", value: ({ row }) => ratio(row?.psnr), words: ({ row }) => (row ? shown(row.psnr, 2) : "") },
  { title: "SSIM", value: ({ row }) => row?.ssim ?? null, words: ({ row }) => (row ? shown(row.ssim, 4) : "") },
  { title: "Time", value: ({ row }) => (row ? (row.encode_ms ?? row.decode_ms) : null), words: ({ row }) => (row ? `${(row.encode_ms ?? row.decode_ms).toFixed(0)} ms` : "") },
];

export class BatchTable {
  /** @type {Map<Job, HTMLTableRowElement>} */
  #rows = new Map();
  #sorted = { column: -1, down: false };

  /** @param {(job: Job) => void} save */
  constructor(save) {
    this.save = save;
    this.heads = COLUMNS.map(({ title, text }, at) =>
      h("th", { scope: "col", className: text ? "" : "number" }, h("button", { type: "button", className: "sort", onclick: () => this.#sort(at) }, title)));
    this.body = h("tbody");
    const head = h("tr", {}, ...this.heads, h("th", { scope: "col" }, h("span", { className: "unseen" }, "Result")));
    this.element = h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Files" }, h("table", { id: "files" }, h("thead", {}, head), this.body));
  }

  /** @param {Job} job */
  add(job) {
    const row = h("tr");
    this.#rows.set(job, row);
    this.body.append(row);
    this.update(job);
  }

  clear() {
    this.#rows.clear();
    this.body.replaceChildren();
  }

  /** @param {Job} job */
  update(job) {
    const save = h("button", { type: "button", className: "quiet", disabled: !job.made, "aria-label": `Save the result of ${job.file.name}`, onclick: () => this.save(job) }, "Save");
    const [name, ...cells] = COLUMNS.map(({ words, text }, at) => h(at ? "td" : "th", { className: text ? "name" : "number", ...(at ? {} : { scope: "row" }) }, words(job)));
    const row = this.#rows.get(job);
    if (row) row.className = job.state;
    row?.replaceChildren(name, ...cells, h("td", {}, save));
  }

  /** @param {number} column */
  #sort(column) {
    const down = this.#sorted.column === column && !this.#sorted.down;
    this.#sorted = { column, down };
    this.heads.forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const { value } = COLUMNS[column];
    const jobs = [...this.#rows.keys()].sort((a, b) => compare(value(a), value(b)) * (down ? -1 : 1) || a.place - b.place);
    this.body.append(...jobs.map((job) => /** @type {HTMLElement} */ (this.#rows.get(job))));
  }
}

/** What has no value comes last going up. @param {string | number | null} a @param {string | number | null} b */
function compare(a, b) {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b), undefined, { numeric: true });
  return a < b ? -1 : Number(a > b);
}
