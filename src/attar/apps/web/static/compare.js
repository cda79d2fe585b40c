// Compare: one picture through two codecs, at the same place and size.
import * as api from "./api.js";
import { Side } from "./side.js";
import { Source } from "./source.js";
import { announce, code, h, keep, pythonWord, sentence, settings, shellWord } from "./ui.js";

const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16];
const MOST_FIT = 4;
const MOST_HEIGHT = 640;
const LEAST_HEIGHT = 160;

class AttarCompare extends HTMLElement {
  /** @type {Blob | null} */
  #image = null;
  #name = "photo.jpg";
  /** @type {[number, number]} */
  #size = [0, 0];
  #zoom = 0; // 0: as large as fits
  /** @type {Side[]} */
  #sides = [];
  #listening = new AbortController();

  source = new Source(this, "Drop or paste one to three images, or", (files) => this.#take(files), true);
  fault = h("p", { className: "fault", role: "alert" });
  work = h("div", { className: "screen", hidden: true });
  split = h("input", { type: "range", className: "split", id: "split", min: "0", max: "100", step: "1", value: "50", "aria-label": "Split: how much of the left side is seen, in percent" });
  mode = h("select", { id: "mode", onchange: () => this.#set({ mode: this.mode.value }) },
    h("option", { value: "split" }, "Split"), h("option", { value: "beside" }, "Side by side"));
  errors = h("input", { type: "checkbox", id: "errors", onchange: () => this.#set({ errors: this.errors.checked ? "1" : null }) });
  zoomShown = h("output", { className: "number", id: "zoom" });
  view = h("div", { className: "view" });
  recipe = h("details", {});
  json = h("textarea", { id: "json", spellcheck: false, rows: 6, "aria-label": "Settings as JSON" });
  refusal = h("p", { className: "fault", role: "alert" });

  async connectedCallback() {
    this.className = "screen";
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Compare two codecs"), h("p", { className: "muted" }, "The same picture through two codecs, with the bytes and the metrics that attar benchmark reports.")),
      this.source.card, this.fault, this.work);
    try {
      const codecs = (await api.codecs()).filter(({ absent }) => absent === null);
      const given = settings();
      this.#sides = ["left", "right"].map((name) => new Side(name, codecs, given, () => this.#changed(), () => this.#match(name)));
      this.mode.value = given.get("mode") === "beside" ? "beside" : "split";
      this.errors.checked = given.get("errors") === "1";
      this.#build();
      await this.source.start(this.#listening.signal);
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#sides.forEach((side) => side.forget());
  }

  #build() {
    const zoom = h("div", { className: "row" },
      h("button", { type: "button", "aria-label": "Zoom out", onclick: () => this.#step(-1) }, "\u2212"), this.zoomShown,
      h("button", { type: "button", "aria-label": "Zoom in", onclick: () => this.#step(1) }, "+"),
      h("button", { type: "button", onclick: () => this.#zoomTo(0) }, "Fit"),
      h("button", { type: "button", onclick: () => this.#zoomTo(1) }, "100 %"));
    this.work.append(
      h("section", { className: "card", "aria-label": "Pictures" },
        h("div", { className: "row spread" }, h("div", { className: "row" }, this.mode, h("label", { className: "small" }, this.errors, "Differences from the original")), zoom),
        this.view, this.split,
        h("p", { className: "muted small" }, "Keys: F flickers between the sides, 0 fits, 1 is 100 %, + and \u2212 zoom; the split moves with the arrows.")),
      h("div", { className: "two sides" }, ...this.#sides.map((side) => side.card)),
      this.recipe, this.#settings());
    const signal = this.#listening.signal;
    this.mode.setAttribute("aria-label", "View");
    this.split.addEventListener("input", () => this.#place());
    addEventListener("resize", () => this.#image && this.#layout(), { signal });
    addEventListener("keydown", (event) => this.#key(event), { signal });
  }

  /** The settings of both sides, to be copied and pasted. */
  #settings() {
    const copy = h("button", { type: "button", onclick: async () => {
      try {
        await navigator.clipboard.writeText(this.json.value);
        announce("Settings copied");
      } catch {
        this.json.select();
      }
    } }, "Copy");
    const apply = h("button", { type: "button", id: "apply", onclick: () => this.#apply() }, "Apply");
    return h("details", { id: "settings" }, h("summary", {}, "Settings as JSON"),
      h("div", { className: "stack" }, this.json, h("div", { className: "row" }, apply, copy), this.refusal));
  }

  #apply() {
    this.refusal.textContent = "";
    try {
      const given = JSON.parse(this.json.value);
      const strange = Object.keys(Object(given)).find((key) => !["left", "right", "mode", "errors"].includes(key));
      if (strange) throw new Error(`nothing is called ${JSON.stringify(strange)}; known are left, right, mode, errors`);
      if (given.mode !== undefined && !["split", "beside"].includes(given.mode)) throw new Error("mode: expected split or beside");
      for (const side of this.#sides) if (given[side.name] !== undefined) side.take(given[side.name]);
      if (given.mode) this.mode.value = given.mode;
      this.errors.checked = given.errors === true;
      this.#set({ mode: this.mode.value, errors: this.errors.checked ? "1" : null });
      this.#changed();
      announce("Settings applied");
    } catch (error) {
      this.refusal.textContent = `These settings are not taken: ${sentence(error)}`;
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const typing = event.target instanceof HTMLSelectElement || event.target instanceof HTMLTextAreaElement || (event.target instanceof HTMLInputElement && event.target.type === "number");
    if (!this.#image || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "f") this.#flicker();
    else if (event.key === "0") this.#zoomTo(0);
    else if (event.key === "1") this.#zoomTo(1);
    else if (event.key === "+" || event.key === "=") this.#step(1);
    else if (event.key === "-") this.#step(-1);
  }

  #flicker() {
    this.#set({ mode: (this.mode.value = "split") });
    this.split.value = this.split.value === "100" ? "0" : "100";
    this.#place();
    announce(this.split.value === "100" ? "Left side" : "Right side");
  }

  /** An image; and files to see beside it, on the right, or on both sides. @param {File[]} files */
  async #take([image, ...others]) {
    this.fault.textContent = "";
    if (!this.#sides.length) return; // there are no codecs, which the page says
    this.#image = image;
    this.#name = image.name || "pasted.png";
    this.#size = [0, 0];
    this.#sides.forEach((side) => side.forget());
    if (others.length === 1) this.#sides[0].take({ codec: "png" });
    others.slice(0, 2).forEach((file, at) => this.#sides[others.length === 1 ? 1 : at].open(file));
    this.work.hidden = false;
    await this.#changed();
  }

  /** Some side's settings have changed: show both anew, from what is kept where it is. */
  async #changed() {
    const image = this.#image;
    if (!image) return;
    this.#tell();
    await Promise.all(this.#sides.map((side) => side.show(image, () => this.#arrived(side))));
    this.#tell(); // with the qualities that were found for targets
  }

  /** @param {Side} side whose picture is there */
  #arrived(side) {
    if (!side.size) return;
    const first = this.#size.join() !== side.size.join();
    this.#size = side.size;
    if (first) this.#layout();
    this.#place();
  }

  /** @param {string} name of the side whose file is to be as large as the other's */
  async #match(name) {
    const [own, other] = name === "left" ? this.#sides : [this.#sides[1], this.#sides[0]];
    if (this.#image && other.bytes) await own.match(this.#image, other.bytes);
  }

  /** @param {Record<string, string | null>} changes */
  #set(changes) {
    keep(changes);
    this.#layout();
  }

  /** @param {number} direction */
  #step(direction) {
    const now = this.#scale();
    const next = direction > 0 ? ZOOMS.find((zoom) => zoom > now * 1.01) : ZOOMS.findLast((zoom) => zoom < now * 0.99);
    if (next) this.#zoomTo(next);
  }

  /** @param {number} zoom */
  #zoomTo(zoom) {
    this.#zoom = zoom;
    this.#layout();
    announce(zoom ? `${zoom * 100} percent` : "Fitted");
  }

  #scale() {
    const pane = this.view.querySelector(".pane");
    if (this.#zoom || !pane || !this.#size[0]) return this.#zoom || 1;
    return Math.min(MOST_FIT, (pane.clientWidth - 2) / this.#size[0], (this.#height - 4) / this.#size[1]);
  }

  /** The most that a pane is high. */
  get #height() {
    return Math.min(MOST_HEIGHT, 0.62 * innerHeight);
  }

  /** Panes and sheets for the mode, the zoom and the size of the picture. */
  #layout() {
    const beside = this.mode.value === "beside";
    const old = this.view.querySelector(".pane");
    const place = old ? [old.scrollLeft, old.scrollTop] : [0, 0];
    this.view.classList.toggle("beside", beside);
    this.split.hidden = beside;
    const panes = (beside ? [[this.#sides[0]], [this.#sides[1]]] : [this.#sides]).map((sides) => {
      const sheet = h("div", { className: "sheet" }, ...sides.map((side) => (this.errors.checked ? side.errors : side.picture)));
      if (!beside) sheet.append(h("div", { className: "line" }));
      const name = beside ? `The ${sides[0].name} side` : "Both sides, split";
      return h("div", { className: "pane", tabIndex: 0, role: "group", "aria-label": name }, sheet);
    });
    this.view.replaceChildren(...panes);
    const scale = this.#scale();
    const height = this.#zoom ? this.#height : Math.max(LEAST_HEIGHT, this.#size[1] * scale + 2);
    for (const pane of panes) {
      pane.style.height = `${height}px`;
      const sheet = /** @type {HTMLElement} */ (pane.firstElementChild);
      sheet.style.width = `${this.#size[0] * scale}px`;
      sheet.style.height = `${this.#size[1] * scale}px`;
      sheet.classList.toggle("crisp", scale > 2);
      pane.scrollTo(place[0], place[1]);
      pane.addEventListener("scroll", () => panes.filter((other) => other !== pane).forEach((other) => other.scrollTo(pane.scrollLeft, pane.scrollTop)));
    }
    this.split.style.maxWidth = `max(200px, ${this.#size[0] * scale}px)`; // under what it splits
    this.zoomShown.textContent = `${Math.round(scale * 100)} %`;
    this.#place();
  }

  /** Put the split where its slider is. */
  #place() {
    const beside = this.mode.value === "beside";
    const at = `${this.split.value}%`;
    for (const shown of [this.#sides[1].picture, this.#sides[1].errors]) shown.style.clipPath = beside ? "" : `inset(0 0 0 ${at})`;
    const line = this.view.querySelector(".line");
    if (line instanceof HTMLElement) line.style.left = `calc(${at} - 1px)`;
  }

  #tell() {
    const open = this.recipe.open;
    const codecs = this.#sides.filter((side) => !side.existing);
    const files = this.#sides.flatMap((side) => (side.existing && side.file ? [side.file.name] : []));
    const names = [...new Set(codecs.map((side) => side.codec))];
    const words = names.flatMap((name) => {
      const qualities = codecs.filter((side) => side.codec === name && side.quality !== null).map((side) => side.quality);
      return qualities.length ? [` --qualities ${name}=${[...new Set(qualities)].join(",")}`] : [];
    });
    const name = shellWord(this.#name);
    const shell = [
      ...(names.length ? [`attar benchmark ${name} --codecs ${names.join(",")}${words.join("")} -o report`] : []),
      ...codecs.filter(({ codec, goal }) => goal.kind && codec.startsWith("attar:")).map(({ codec, goal }) => `attar compress ${name} -m ${codec.slice(6)}${goal.options}`),
      ...files.map((file) => `attar compare ${name} ${shellWord(file)}`),
    ].join("\n");
    const python = [
      "import attar", "from attar.codec import images", "from attar.measure import anchors, worker", "",
      `image = images.read(${pythonWord(this.#name)}).pixels`,
      ...codecs.flatMap((side) => [
        `codec = anchors.find("${side.codec}")`,
        `data = codec.encode(image, ${side.quality ?? "None"})${side.goal.kind ? "  # the quality found for the target" : ""}`,
        "print(len(data), worker.distortions(image, codec.decode(data)))",
      ]),
      ...files.map((file) => (file.endsWith(".attar")
        ? `print(worker.distortions(image, attar.decompress(open(${pythonWord(file)}, "rb").read())))`
        : `print(worker.distortions(image, images.read(${pythonWord(file)}).pixels))`)),
    ].filter((line) => line !== "import attar" || files.some((file) => file.endsWith(".attar"))).join("\n");
    if (document.activeElement !== this.json) {
      const [left, right] = this.#sides.map((side) => side.settings);
      const lines = Object.entries({ left, right, mode: this.mode.value, errors: this.errors.checked });
      this.json.value = `{\n${lines.map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`).join(",\n")}\n}`;
    }
    this.recipe.replaceChildren(h("summary", {}, "The same on the command line and in Python"), h("div", { className: "two" }, code(shell, "the command"), code(python, "the Python")));
    this.recipe.open = open;
  }
}

customElements.define("attar-compare", AttarCompare);
