// Models and runs: what is installed, and what is being trained, as it goes on.
import * as api from "./api.js";
import { layersOf } from "./layers.js";
import { lines } from "./lines.js";
import { Run, stateWords } from "./run.js";
import { announce, code, h, keep, sentence, settings } from "./ui.js";

/** @typedef {import("./run.js").RunRow} RunRow */

class AttarModels extends HTMLElement {
  /** @type {Map<string, RunRow>} */
  #rows = new Map();
  /** @type {Map<string, HTMLAnchorElement>} */
  #links = new Map();
  /** @type {EventSource | null} */
  #events = null;
  /** @type {Run | null} */
  #run = null;
  #listening = new AbortController();

  models = h("div", { className: "two", id: "models" });
  fault = h("p", { className: "fault", role: "alert" });
  list = h("ul", { className: "runs", id: "runs" });
  empty = h("p", { className: "muted", id: "no-runs" }, "Looking for runs\u2026");
  live = h("p", { className: "muted small", id: "live" }, "Not connected yet.");
  chosen = h("div", { className: "screen" });

  connectedCallback() {
    this.className = "screen";
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Models and runs"), h("p", { className: "muted" }, "The bundles that this machine can compress with, and the runs of attar train, as they go on.")),
      this.fault, this.models,
      h("section", { className: "card", "aria-label": "Training runs" },
        h("div", { className: "row spread" }, h("h2", {}, "Training runs"), this.live), this.list, this.empty),
      this.chosen);
    const signal = this.#listening.signal;
    addEventListener("hashchange", () => this.#choose(), { signal });
    // A page that nobody sees listens to nothing: a browser opens only a few connections to a server.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#events?.close() : this.#listen()), { signal });
    this.#showModels();
    this.#listen();
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#events?.close();
    this.#run?.leave();
  }

  async #showModels() {
    try {
      const found = await api.models();
      this.models.replaceChildren(...found.map(card));
      if (!found.length) this.models.replaceChildren(h("p", { className: "muted" }, "No bundle is installed."));
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  #listen() {
    this.#events?.close();
    const events = (this.#events = new EventSource("api/runs/events"));
    /** @param {string} kind @param {(data: any) => void} take */
    const on = (kind, take) => events.addEventListener(kind, (event) => take(JSON.parse(event.data)));
    on("rows", (/** @type {RunRow[]} */ rows) => {
      this.#rows = new Map(rows.map((row) => [row.id, row]));
      this.#list();
    });
    on("row", (/** @type {RunRow} */ row) => {
      this.#tell(this.#rows.get(row.id), row);
      this.#rows.set(row.id, row);
      this.#list();
    });
    on("gone", (/** @type {string} */ id) => {
      this.#rows.delete(id);
      this.#list();
    });
    events.addEventListener("open", () => (this.live.textContent = "\u25cf Live"));
    events.addEventListener("error", () => {
      const lost = events.readyState === EventSource.CLOSED;
      this.live.textContent = lost ? "\u26a0\ufe0e No live news: reload the page." : "\u26a0\ufe0e The server does not answer; trying again.";
    });
  }

  /** @param {RunRow | undefined} before @param {RunRow} row */
  #tell(before, row) {
    if (!before) announce(`${row.name} has begun`);
    else if (before.state !== row.state) announce(`${row.name}: ${row.state}`);
    else if (before.epoch !== row.epoch && row.id === this.#run?.id) announce(`${row.name}: epoch ${row.epoch} has ended`);
  }

  #sorted() {
    const going = (/** @type {RunRow} */ { state }) => Number(state === "training");
    return [...this.#rows.values()].sort((a, b) => going(b) - going(a) || b.updated - a.updated || a.name.localeCompare(b.name));
  }

  #newest() {
    return this.#sorted()[0]?.id;
  }

  /** The list of runs, in which links stay the same elements, so that none loses the focus. */
  #list() {
    const rows = this.#sorted();
    for (const row of rows) {
      const link = this.#links.get(row.id) ?? h("a", { href: `#/models?run=${encodeURIComponent(row.id)}` });
      this.#links.set(row.id, link);
      link.replaceChildren(h("strong", {}, row.name), h("span", { className: `state ${row.state}` }, stateWords(row)), h("span", { className: "muted small number" }, summary(row)));
    }
    const wanted = rows.map((row) => /** @type {HTMLAnchorElement} */ (this.#links.get(row.id)));
    const there = [...this.list.querySelectorAll("a")];
    if (wanted.length !== there.length || wanted.some((link, at) => link !== there[at])) this.list.replaceChildren(...wanted.map((link) => h("li", {}, link)));
    this.empty.hidden = rows.length > 0;
    this.empty.textContent = "There is no run in this folder. Train one there, or name another folder: attar serve --runs DIR.";
    this.#choose();
  }

  /** Show the run in the address, else the one that is shown, else the newest. */
  #choose() {
    const asked = settings().get("run");
    const id = asked ?? (this.#rows.has(this.#run?.id ?? "") ? this.#run?.id : this.#newest()) ?? "";
    const row = this.#rows.get(id);
    for (const [known, link] of this.#links) {
      if (known === row?.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    if (row && this.#run?.id === row.id) {
      this.#run.update(row);
      return;
    }
    this.#run?.leave();
    this.#run = null;
    this.chosen.replaceChildren();
    if (!row) {
      if (asked) this.chosen.append(h("p", { className: "fault" }, "The run in this address is not, or no longer, in the folder."));
      return;
    }
    this.#run = new Run(row, Number(settings().get("epoch")) || null, (epoch) => keep({ run: row.id, epoch }));
    this.chosen.append(this.#run.element);
    this.#run.update(row);
  }
}

/** @param {RunRow} row */
function summary({ epoch, epochs, best, dataset }) {
  const found = best ? [`best loss ${best.val_loss.toPrecision(4)}`, best.val_psnr === null ? "" : `${best.val_psnr.toFixed(2)} dB`, best.val_ssim === null ? "" : `SSIM ${best.val_ssim.toFixed(4)}`] : [];
  return [`epoch ${epoch} of ${epochs ?? "?"}`, dataset ?? "", ...found].filter(Boolean).join(" \u00b7 ");
}

/** An installed bundle. @param {import("./api.js").Model} row */
function card(row) {
  if (!row.ok) {
    return h("section", { className: "card", "aria-label": row.input }, h("h2", {}, row.input), h("p", { className: "fault" }, row.error ?? "It cannot be used."));
  }
  const list = h("dl", { className: "facts" });
  for (const [term, words] of facts(row)) list.append(h("dt", {}, term), h("dd", {}, words));
  return h("section", { className: "card", id: `model-${row.input}`, "aria-label": `Model ${row.name}` },
    h("div", { className: "stack" }, h("h2", {}, `${row.name} `, h("span", { className: "muted" }, `version ${row.version}`)), h("p", { className: "muted small" }, row.description)),
    list, ...curve(row),
    h("details", {}, h("summary", {}, "All that is known of its training"), record({ ...row.training, ...row.created_by })),
    layersOf(row.model),
    h("details", {}, h("summary", {}, "The same on the command line and in Python"), h("div", { className: "stack" },
      code(`attar models show ${row.input} --json\nattar compress image.png -m ${row.input}`, "the commands"),
      code(`import attar\n\ncodec = attar.load("${row.input}")\nprint(codec.manifest)\ndata = codec.compress("image.png")`, "the Python"))));
}

/** @param {import("./api.js").Model} row @returns {[string, string | HTMLElement][]} */
function facts(row) {
  const said = (/** @type {string} */ name) => row.training[`validation_${name}`];
  const number = (/** @type {string} */ name, /** @type {number} */ digits) => (typeof said(name) === "number" ? Number(said(name)).toFixed(digits) : "\u2013");
  const networks = Object.entries(row.graphs).map(([name, bytes]) => `${name.replaceAll("_", " ")} ${megabytes(bytes)}`);
  return [
    ["Takes", row.accepts],
    ["Quality", row.qualities ? `${row.qualities[0]} to ${row.qualities[1]}` : "a single rate"],
    ["Trained on", String(row.training.dataset ?? "not told")],
    ["For", [["epochs", "epochs"], ["steps", "steps"]].filter(([name]) => row.training[name] !== undefined).map(([name, words]) => `${Number(row.training[name]).toLocaleString("en")} ${words}`).join(", ") || "not told"],
    ["Validation", said("psnr") === undefined ? "not told" : `${number("psnr", 2)} dB, SSIM ${number("ssim", 4)}, ${number("rate", 3)} bits per pixel`],
    ["Licence", row.licence],
    ["Latent", `${row.latent.channels} channels, ${row.tables} tables`],
    ["Networks", networks.join(", ")],
    ["Installed", `${row.file}, ${megabytes(row.bytes)}, ${row.shipped ? "came with Attar" : "added on this machine"}`],
    ["Id", h("span", {}, h("code", { className: "hash", title: row.id }, row.id.slice(0, 8)), h("span", { className: "muted small" }, " of SHA-256 "), h("code", { className: "hash small" }, row.id))],
  ];
}

/** The rate-distortion points of a model of variable rate. @param {import("./api.js").Model} row */
function curve({ training }) {
  const at = (/** @type {string} */ name) => Number(training[`validation_rd_${name}`]);
  /** @type {[number, number][]} */
  const points = [];
  for (let place = 0; Number.isFinite(at(`bpp_${place}`)) && Number.isFinite(at(`psnr_${place}`)); place += 1) points.push([at(`bpp_${place}`), at(`psnr_${place}`)]);
  if (points.length < 2) return [];
  const [first, last] = [points[0], points[points.length - 1]];
  const words = `From ${first[1].toFixed(1)} dB at ${first[0].toFixed(2)} bits per pixel to ${last[1].toFixed(1)} dB at ${last[0].toFixed(2)}`;
  const drawn = lines([{ name: "quality", kind: "own", points }], { x: "bits per pixel", y: "PSNR, dB", width: 460, height: 260 }, words);
  return [h("figure", { className: "stack" }, h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Curve" }, drawn), h("figcaption", { className: "muted small" }, `${words}, on the validation images.`))];
}

/** @param {Record<string, unknown>} values */
export function record(values) {
  const list = h("dl", { className: "facts" });
  for (const [name, value] of Object.entries(values)) list.append(h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value === null ? "\u2013" : String(value)));
  return list;
}

/** @param {number} bytes */
const megabytes = (bytes) => (bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);

customElements.define("attar-models", AttarModels);
