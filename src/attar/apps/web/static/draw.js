// Draw: a digit, what the model makes of it, and the real file.
import * as api from "./api.js";
import { bars } from "./charts.js";
import { difference, fromImage, paint, toPgm } from "./pixels.js";
import { SIDE, Sketch } from "./sketch.js";
import { announce, code, download, filePicker, h, keep, sentence, settings, shown, toWord } from "./ui.js";

/** @typedef {import("./pixels.js").Gray} Gray */

class AttarDraw extends HTMLElement {
  #live = new api.Latest();
  #generation = new api.Latest();
  /** @type {Blob | null} */
  #file = null;
  /** @type {number[][]} */
  #samples = [];
  #pending = 0;

  pad = h("canvas", { className: "pad", role: "img", "aria-label": "Drawing. Draw with mouse, pen or finger; the sample digits below need no pointer." });
  sketch = new Sketch(this.pad, 28, 28);
  brush = h("input", { type: "range", id: "brush", min: "8", max: "40", onchange: () => keep({ brush: this.brush.value }) });
  undo = h("button", { type: "button", onclick: () => this.#undo() }, "Undo");
  clear = h("button", { type: "button", id: "clear", onclick: () => this.#change({ kind: "clear" }, "Cleared") }, "Clear");
  model = h("select", { id: "model", onchange: () => this.#set({ model: this.model.value }) });
  effort = h("input", { type: "range", id: "effort", min: "0", max: "9", oninput: () => this.#set({ effort: this.effort.value }) });
  effortShown = h("output", { className: "number", htmlFor: "effort" });
  seen = h("canvas", { className: "pixels", id: "seen", role: "img", "aria-label": "The 28 by 28 pixels that the model sees" });
  bytes = h("span", { className: "big number", id: "bytes" }, "\u2013");
  bars = h("div", { id: "bars" });
  generate = h("button", { type: "button", id: "generate", className: "primary", onclick: () => this.#generate() }, "Generate");
  save = h("button", { type: "button", id: "save", onclick: () => this.#file && download(this.#file, "digit.attar") }, "Save .attar");
  savePixels = h("button", { type: "button", id: "save-pixels", onclick: () => download(toPgm(this.sketch.pixels()), "digit.pgm") }, "Save pixels");
  fault = h("p", { className: "fault", role: "alert" });
  results = h("section", { className: "card", id: "results", "aria-label": "Result", hidden: true });

  async connectedCallback() {
    this.className = "screen";
    try {
      const [models, samples] = await Promise.all([api.models(), api.samples()]);
      this.#samples = samples;
      const fitting = models.filter(({ ok, size, channels }) => ok && channels === 1 && size?.join() === "28,28");
      if (!fitting.length) throw new Error("No model for 28 x 28 gray images is installed: attar models lists what is.");
      this.#build(fitting);
    } catch (error) {
      this.replaceChildren(h("p", { className: "fault", role: "alert" }, sentence(error)));
    }
  }

  disconnectedCallback() {
    this.#live.stop();
    this.#generation.stop();
    clearTimeout(this.#pending);
  }

  /** @param {import("./api.js").Model[]} models */
  #build(models) {
    const given = settings();
    this.model.append(...models.map(({ input }) => h("option", { value: input }, input)));
    if (models.some(({ input }) => input === given.get("model"))) this.model.value = given.get("model") ?? "";
    this.brush.value = given.get("brush") ?? "20";
    this.effort.value = given.get("effort") ?? "3";
    const drawing = h("section", { className: "card", "aria-label": "Drawing" },
      this.pad,
      h("div", { className: "row spread" }, h("label", { className: "small" }, "Brush", this.brush), h("span", { className: "row" }, this.undo, this.clear)),
      h("div", { className: "stack" }, h("h2", {}, "Or take a written one"), this.#sampleButtons()));
    const model = h("section", { className: "card", "aria-label": "Model" },
      h("div", { className: "row" }, h("label", { className: "small" }, "Model", this.model), h("label", { className: "small" }, "Effort", this.effort, this.effortShown)),
      h("div", { className: "seen" },
        h("div", { className: "stack" }, h("h2", {}, "What it sees"), this.seen),
        h("div", { className: "stack" }, h("h2", {}, "The latent, one bar a symbol"), this.bars)),
      h("div", { className: "stack" }, h("h2", {}, "The .attar file"), this.bytes, h("p", { className: "muted small" }, "A raw image of this size is 784 bytes.")),
      h("div", { className: "row" }, this.generate, this.save, this.savePixels, filePicker("Open .attar", ".attar", this, (file) => this.#open(file))),
      this.fault);
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Draw a digit"), h("p", { className: "muted" }, "An autoencoder keeps its essence in a few dozen bytes, and draws it again from them.")),
      h("div", { className: "draw" }, drawing, model), this.results);
    this.#listen();
    const sample = Number.parseInt(given.get("sample") ?? "", 10);
    if (this.#samples[sample]) this.sketch.add({ kind: "sample", values: this.#samples[sample] });
    this.#set({});
  }

  #sampleButtons() {
    const buttons = this.#samples.map((values, digit) => {
      const canvas = h("canvas", { className: "pixels" });
      paint(canvas, { width: 28, height: 28, values: Uint8ClampedArray.from(values) });
      const take = () => {
        this.#change({ kind: "sample", values }, `Sample ${digit} taken`);
        keep({ sample: digit });
      };
      return h("button", { type: "button", "aria-label": `Sample ${digit}`, onclick: take }, canvas);
    });
    return h("div", { className: "samples" }, ...buttons);
  }

  #listen() {
    const { pad } = this;
    /** @type {import("./sketch.js").Stroke | null} */
    let stroke = null;
    /** @param {PointerEvent} event @returns {[number, number]} */
    const place = (event) => {
      const box = pad.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
    };
    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pad.setPointerCapture(event.pointerId);
      stroke = { kind: "stroke", brush: Number(this.brush.value), points: [place(event)] };
      this.#change(stroke, null);
      keep({ sample: null });
    });
    pad.addEventListener("pointermove", (event) => {
      if (!stroke) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) stroke.points.push(place(part));
      this.sketch.redraw();
      this.#later();
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (stroke = null));
    this.addEventListener("keydown", (event) => {
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#undo();
    });
  }

  #undo() {
    this.sketch.undo();
    keep({ sample: null });
    announce("Undone");
    this.#later();
  }

  /** @param {Parameters<Sketch["add"]>[0]} action @param {string | null} said */
  #change(action, said) {
    this.sketch.add(action);
    if (action.kind === "clear") keep({ sample: null });
    if (said) announce(said);
    this.#later();
  }

  /** @param {Record<string, string>} changes */
  #set(changes) {
    keep(changes);
    this.effortShown.textContent = this.effort.value;
    this.#later();
  }

  /** Show at once what the model would see, and ask for its file when the hand rests. */
  #later() {
    paint(this.seen, this.sketch.pixels());
    this.undo.disabled = !this.sketch.actions.length;
    this.clear.disabled = this.savePixels.disabled = this.sketch.empty;
    this.results.classList.add("stale");
    this.#live.stop();
    this.#file = null;
    this.#enable();
    clearTimeout(this.#pending);
    this.#pending = setTimeout(() => this.#refresh(), 80);
  }

  #enable() {
    this.generate.disabled = this.sketch.empty;
    this.save.disabled = !this.#file;
  }

  /** The file of the drawing as it is. @returns {Promise<void>} */
  async #refresh() {
    clearTimeout(this.#pending);
    this.fault.textContent = "";
    if (this.sketch.empty) {
      this.bytes.textContent = "\u2013";
      this.bars.replaceChildren(h("p", { className: "muted small" }, "Draw something, or take a digit."));
      return;
    }
    try {
      const found = await this.#live.run(async (signal) => {
        const query = { model: this.model.value, effort: Number(this.effort.value) };
        const file = await api.compress(toPgm(this.sketch.pixels()), query, signal);
        return { file, facts: await api.inspect(file, signal) };
      });
      if (!found) return;
      this.#file = found.file;
      this.bytes.textContent = `${found.file.size} bytes`;
      const symbols = found.facts.symbols ?? [];
      this.bars.replaceChildren(bars(symbols, `${symbols.length} symbols between ${Math.min(...symbols)} and ${Math.max(...symbols)}`));
      this.#enable();
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  async #generate() {
    if (!this.#file) await this.#refresh();
    const file = this.#file;
    if (!file) return;
    const original = this.sketch.pixels();
    await this.#show(file, original, async (signal) => ({
      picture: await fromImage(await api.decompress(file, signal)),
      numbers: await api.compare(toPgm(original), file, signal),
    }));
  }

  /** @param {File} file */
  async #open(file) {
    await this.#show(file, null, async (signal) => ({ picture: await fromImage(await api.decompress(file, signal)), numbers: null }));
  }

  /**
   * @param {Blob} file
   * @param {Gray | null} original
   * @param {(signal: AbortSignal) => Promise<{picture: Gray, numbers: import("./api.js").Comparison | null}>} work
   */
  async #show(file, original, work) {
    this.fault.textContent = "";
    try {
      const found = await this.#generation.run(work);
      if (!found) return;
      const { picture, numbers } = found;
      const figures = original
        ? [figure("Original", original), figure("Regenerated", picture), figure("Difference", difference(original, picture))]
        : [figure("Regenerated", picture)];
      const words = numbers
        ? `${file.size} bytes, PSNR ${shown(numbers.psnr, 2, " dB")}, SSIM ${shown(numbers.ssim, 4)}`
        : `${file.size} bytes; the original is not in the file`;
      this.results.replaceChildren(
        h("div", { className: "row spread" }, h("h2", {}, "Result"), h("p", { className: "number", id: "numbers" }, words)),
        h("div", { className: "results" }, ...figures),
        h("p", { className: "small" }, h("a", { href: `#/inspect?file=${await toWord(file)}` }, "Where the bytes went")),
        original ? this.#recipe() : code("attar decompress digit.attar -o digit.png", "the command"));
      this.results.hidden = false;
      this.results.classList.remove("stale");
      this.results.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      announce(`Regenerated: ${words}`);
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  #recipe() {
    const [model, effort] = [this.model.value, this.effort.value];
    const shell = [
      `attar compress digit.pgm -m ${model} --effort ${effort}`,
      "attar decompress digit.attar -o regenerated.png",
      "attar compare digit.pgm digit.attar",
    ].join("\n");
    const python = [
      "import attar",
      "",
      `codec = attar.load("${model}")`,
      `data = codec.compress("digit.pgm", effort=${effort})`,
      "pixels = codec.decompress(data)  # uint8 (28, 28, 1)",
    ].join("\n");
    return h("details", {}, h("summary", {}, "The same on the command line and in Python"),
      h("div", { className: "two" }, code(shell, "the commands"), code(python, "the Python")));
  }
}

/** @param {string} name @param {Gray} gray */
function figure(name, gray) {
  const canvas = h("canvas", { className: "pixels", role: "img", "aria-label": name });
  paint(canvas, gray);
  const largest = name === "Difference" ? h("span", { className: "muted" }, `, at most ${Math.max(...gray.values)} of 255`) : null;
  return h("figure", {}, canvas, h("figcaption", { className: "small" }, name, largest));
}

customElements.define("attar-draw", AttarDraw);
