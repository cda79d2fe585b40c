// Batch: many files through one codec, a row each; results stay in this page until they are saved.
import * as api from "./api.js";
import { recipe } from "./batchrecipe.js";
import { BatchTable } from "./batchtable.js";
import { Goal } from "./goal.js";
import { toCsv } from "./tables.js";
import { announce, download, filesPicker, h, keep, sentence, settings } from "./ui.js";
import { tellApart, zip } from "./zip.js";

/** @typedef {import("./batchtable.js").Job} Job */

const AT_ONCE = 2;
const BUSY = 429;
const PAUSE = 1000;
const PHOTOS = ["kitten", "mountain", "earthrise"];
const TAKEN = "image/*,.attar,.jxl,.avif,.webp,.pgm,.ppm";

class AttarBatch extends HTMLElement {
  /** @type {Job[]} */
  #jobs = [];
  /** @type {AbortController | null} */
  #running = null;
  /** @type {api.Codec[]} */
  #codecs = [];

  drop = h("section", { className: "drop", "aria-label": "Files" });
  fault = h("p", { className: "fault", role: "alert" });
  codec = h("select", { id: "codec", onchange: () => this.#chosen() });
  goal = new Goal("batch", settings(), 50, () => this.#changed());
  effort = h("input", { type: "number", id: "effort", min: "0", max: "9", step: "1", value: "0", onchange: () => this.effort.reportValidity() && this.#changed() });
  effortLabel = h("label", { className: "small" }, "Effort", this.effort);
  convert = h("input", { type: "checkbox", id: "convert", onchange: () => this.#changed() });
  strip = h("input", { type: "checkbox", id: "strip", onchange: () => this.#changed() });
  stripLabel = h("label", { className: "small" }, this.strip, "Drop ICC profile, EXIF and XMP");
  plain = h("p", { className: "muted small" }, "Files of this codec are written as attar benchmark measures them: without metadata.");
  start = h("button", { type: "button", id: "start", className: "primary", onclick: () => this.#run(this.#due) }, "Start");
  cancel = h("button", { type: "button", id: "cancel", onclick: () => this.#running?.abort() }, "Cancel");
  retry = h("button", { type: "button", id: "retry", onclick: () => this.#run(this.#jobs.filter(({ state }) => state === "failed")) }, "Retry what failed");
  saveZip = h("button", { type: "button", id: "save-zip", onclick: () => this.#saveZip() }, "Save all as ZIP");
  saveCsv = h("button", { type: "button", id: "save-csv", onclick: () => this.#saveCsv() }, "CSV");
  clear = h("button", { type: "button", id: "clear", onclick: () => this.#clear() }, "Clear");
  bar = h("progress", { id: "progress", max: 1, value: 0, "aria-label": "Files done" });
  summary = h("p", { className: "number", id: "summary" });
  table = new BatchTable((job) => this.#save(job));
  work = h("section", { className: "card", "aria-label": "Files and results", hidden: true });
  recipe = h("details", {});

  async connectedCallback() {
    this.className = "screen";
    this.drop.append(
      h("p", {}, "Drop images here, or .attar files to have them back as PNG"),
      h("div", { className: "row" }, filesPicker("Choose files", TAKEN, this, (files) => this.#add(files)),
        h("button", { type: "button", id: "samples", onclick: () => this.#samples() }, "Take the three photographs")));
    this.work.append(h("div", { className: "row" }, this.start, this.cancel, this.retry, this.saveZip, this.saveCsv, this.clear), this.bar, this.summary, this.table.element);
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Many files at once"), h("p", { className: "muted" }, "One codec and one quality or target for all. The results stay in this page until you save them.")),
      this.drop, this.fault, this.#options(), this.work, this.recipe);
    try {
      this.#codecs = (await api.codecs()).filter(({ absent }) => absent === null);
      this.codec.append(...this.#codecs.map(({ name }) => h("option", { value: name }, name)));
      const given = settings();
      const first = this.#codecs.find(({ name, unit }) => name.startsWith("attar:") && unit != null)?.name ?? "webp";
      this.codec.value = this.#codecs.some(({ name }) => name === given.get("codec")) ? (given.get("codec") ?? "") : first;
      this.effort.value = String(Math.min(9, Math.max(0, Number.parseInt(given.get("effort") ?? "0", 10) || 0)));
      this.convert.checked = given.get("convert") === "1";
      this.strip.checked = given.get("strip") === "1";
      this.#fit();
      this.#told();
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  disconnectedCallback() {
    this.#running?.abort();
  }

  #options() {
    return h("section", { className: "card", "aria-label": "Settings" },
      h("div", { className: "row" }, h("label", { className: "small" }, "Codec", this.codec), this.goal.element, this.effortLabel),
      h("div", { className: "row" }, h("label", { className: "small" }, this.convert, "Accept a loss: CMYK, 16 bits, frames after the first"), this.stripLabel), this.plain);
  }

  #chosen() {
    this.#fit();
    this.#changed();
  }

  /** Show what the chosen codec takes. */
  #fit() {
    const known = this.#codecs.find(({ name }) => name === this.codec.value);
    if (known) this.goal.for(known);
    const own = this.codec.value.startsWith("attar:");
    this.effortLabel.hidden = this.stripLabel.hidden = !own;
    this.plain.hidden = own;
  }

  #changed() {
    keep({
      codec: this.codec.value,
      effort: this.effort.value === "0" ? null : this.effort.value,
      convert: this.convert.checked ? "1" : null,
      strip: this.strip.checked ? "1" : null,
    });
    this.goal.write();
    this.#told();
  }

  /** What every request asks for. @returns {api.Query} */
  get #query() {
    const own = this.codec.value.startsWith("attar:");
    return {
      codec: this.codec.value, ...this.goal.query, effort: own ? Number(this.effort.value) : 0,
      convert: String(this.convert.checked), strip: String(own && this.strip.checked),
    };
  }

  async #samples() {
    try {
      this.#add(await Promise.all(PHOTOS.map(async (name) => new File([await api.photo(name)], name === "mountain" ? `${name}.jpg` : `${name}.png`))));
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {File[]} files */
  #add(files) {
    this.fault.textContent = "";
    for (const file of files) {
      const job = /** @type {Job} */ ({ file, place: this.#jobs.length, state: "waiting", fault: "", row: null, made: null, asked: "", name: "" });
      this.#jobs.push(job);
      this.table.add(job);
    }
    announce(`${files.length} files added`);
    this.#told();
  }

  #clear() {
    this.#running?.abort();
    this.#jobs = [];
    this.table.clear();
    this.#told();
  }

  /** Jobs that have not been tried with the settings as they are. */
  get #due() {
    const asked = JSON.stringify(this.#query);
    return this.#jobs.filter((job) => job.state === "waiting" || job.state === "running" || job.asked !== asked);
  }

  /** Do some jobs, a few at a time, with the settings as they are. @param {Job[]} jobs */
  async #run(jobs) {
    const running = (this.#running = new AbortController());
    const query = this.#query;
    for (const job of jobs) this.#note(job, { state: "waiting", fault: "", row: null, made: null });
    const waiting = [...jobs];
    const lane = async () => {
      for (let job = waiting.shift(); job && !running.signal.aborted; job = waiting.shift()) await this.#do(job, query, running.signal);
    };
    this.#told();
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
    if (this.#running !== running) return;
    this.#running = null;
    this.#told();
    announce(running.signal.aborted ? "Cancelled" : (this.summary.textContent ?? ""));
  }

  /** @param {Job} job @param {api.Query} query @param {AbortSignal} signal */
  async #do(job, query, signal) {
    const asked = JSON.stringify(query);
    this.#note(job, { state: "running" });
    try {
      const { made, row } = await this.#patiently(job.file, query, signal);
      this.#note(job, { state: "done", made, row, asked });
    } catch (error) {
      this.#note(job, signal.aborted ? { state: "waiting" } : { state: "failed", fault: sentence(error), asked });
    }
    this.#told();
  }

  /** Ask again while the server is busy. @param {File} file @param {api.Query} query @param {AbortSignal} signal */
  async #patiently(file, query, signal) {
    for (;;) {
      try {
        return await api.convert(file, query, signal);
      } catch (error) {
        if (!(error instanceof api.Refused) || error.status !== BUSY || signal.aborted) throw error;
        await new Promise((done) => setTimeout(done, PAUSE));
      }
    }
  }

  /** @param {Job} job @param {Partial<Job>} changes */
  #note(job, changes) {
    Object.assign(job, changes);
    this.table.update(job);
  }

  /** Buttons, the bar, the summary and the recipe, as things stand. */
  #told() {
    const jobs = this.#jobs;
    const done = jobs.filter(({ state }) => state === "done");
    const failed = jobs.filter(({ state }) => state === "failed");
    const going = this.#running !== null;
    const due = this.#due.length;
    this.work.hidden = !jobs.length;
    this.start.textContent = due ? `Start ${due} ${due === 1 ? "file" : "files"}` : "Start";
    this.start.disabled = going || !due || !this.codec.value; // the codecs may still be on their way
    this.cancel.hidden = !going;
    this.retry.hidden = going || !failed.length;
    this.saveZip.disabled = this.saveCsv.disabled = !done.length;
    this.bar.max = jobs.length || 1;
    this.bar.value = done.length + failed.length;
    const before = done.reduce((sum, { row }) => sum + (row?.input_bytes ?? 0), 0);
    const after = done.reduce((sum, { row }) => sum + (row?.bytes ?? 0), 0);
    const sizes = before ? `: ${before.toLocaleString("en")} bytes before, ${after.toLocaleString("en")} after, ${(100 * (1 - after / before)).toFixed(1)} % saved` : "";
    this.summary.textContent = `${done.length} of ${jobs.length} done${failed.length ? `, ${failed.length} failed` : ""}${sizes}`;
    this.#recipe();
  }

  /** Names of the results, no two alike. */
  #rename() {
    const done = this.#jobs.filter(({ row }) => row);
    const names = tellApart(done.map(({ file, row }) => `${file.name.replace(/\.[^./\\]*$/, "")}${row?.suffix}`));
    done.forEach((job, at) => (job.name = names[at]));
  }

  /** @param {Job} job */
  #save(job) {
    this.#rename();
    if (job.made) download(job.made, job.name);
  }

  async #saveZip() {
    this.#rename();
    this.saveZip.disabled = true;
    try {
      const done = this.#jobs.flatMap(({ made, name }) => (made ? [{ name, data: made }] : []));
      download(await zip(done), "attar.zip");
    } catch (error) {
      this.fault.textContent = sentence(error);
    } finally {
      this.saveZip.disabled = false;
    }
  }

  #saveCsv() {
    this.#rename();
    const rows = this.#jobs.map(({ file, state, fault, name, row }) => {
      const numbers = { codec: null, codec_version: null, quality: null, width: null, height: null, bytes: null, bpp: null, saved_percent: null, suffix: null, encode_ms: null, decode_ms: null, psnr: null, ssim: null, ms_ssim: null, ...row };
      return { input: file.name, output: row ? name : null, state, error: fault, ...numbers, input_bytes: file.size };
    });
    download(toCsv(rows), "attar.csv");
  }

  #recipe() {
    const order = { codec: this.codec.value, goal: this.goal, effort: Number(this.effort.value), convert: this.convert.checked, strip: this.strip.checked };
    const { open } = this.recipe;
    this.recipe.replaceChildren(h("summary", {}, "The same on the command line and in Python"), recipe(this.#jobs.map(({ file }) => file.name), order));
    this.recipe.open = open;
  }
}

customElements.define("attar-batch", AttarBatch);
