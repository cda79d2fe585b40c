// Compare: one picture through two codecs, at the same place and size.
import * as api from "./api.js";
import { Side } from "./side.js";
import { announce, code, filePicker, h, keep, sentence, settings } from "./ui.js";

const PHOTOS = ["kitten", "mountain", "earthrise"];
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

  drop = h("section", { className: "card", "aria-label": "Image" });
  fault = h("p", { className: "fault", role: "alert" });
  work = h("div", { className: "screen", hidden: true });
  split = h("input", { type: "range", className: "split", id: "split", min: "0", max: "100", step: "1", value: "50", "aria-label": "Split: how much of the left side is seen, in percent" });
  mode = h("select", { id: "mode", onchange: () => this.#set({ mode: this.mode.value }) },
    h("option", { value: "split" }, "Split"), h("option", { value: "beside" }, "Side by side"));
  errors = h("input", { type: "checkbox", id: "errors", onchange: () => this.#set({ errors: this.errors.checked ? "1" : null }) });
  zoomShown = h("output", { className: "number", id: "zoom" });
  view = h("div", { className: "view" });
  recipe = h("details", {});

  async connectedCallback() {
    this.className = "screen";
    this.#offer();
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Compare two codecs"), h("p", { className: "muted" }, "The same picture through two codecs, with the bytes and the metrics that attar benchmark reports.")),
      this.drop, this.fault, this.work);
    try {
      const codecs = (await api.codecs()).filter(({ absent }) => absent === null);
      const given = settings();
      this.#sides = ["left", "right"].map((name) => new Side(name, codecs, given, () => this.#changed(), () => this.#match(name)));
      this.mode.value = given.get("mode") === "beside" ? "beside" : "split";
      this.errors.checked = given.get("errors") === "1";
      this.#build();
      const photo = given.get("photo");
      if (photo && PHOTOS.includes(photo)) await this.#sample(photo);
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#sides.forEach((side) => side.forget());
  }

  #offer() {
    const samples = PHOTOS.map((name) => h("button", { type: "button", onclick: () => this.#sample(name) }, name[0].toUpperCase() + name.slice(1)));
    this.drop.append(h("div", { className: "row" },
      h("span", {}, "Drop or paste an image, or"), filePicker("Choose one", "image/*", this, (file) => this.#take(file, file.name)),
      h("span", { className: "muted" }, "or take"), ...samples));
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
      this.recipe);
    const signal = this.#listening.signal;
    this.mode.setAttribute("aria-label", "View");
    this.split.addEventListener("input", () => this.#place());
    addEventListener("resize", () => this.#image && this.#layout(), { signal });
    addEventListener("keydown", (event) => this.#key(event), { signal });
    addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (file) this.#take(file, file.name);
    }, { signal });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const typing = event.target instanceof HTMLSelectElement || (event.target instanceof HTMLInputElement && event.target.type === "number");
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

  /** @param {string} name */
  async #sample(name) {
    try {
      await this.#take(await api.photo(name), `${name}.png`);
      keep({ photo: name });
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {Blob} image @param {string} name */
  async #take(image, name) {
    this.fault.textContent = "";
    keep({ photo: null });
    this.#image = image;
    this.#name = name || "pasted.png";
    this.#size = [0, 0];
    this.#sides.forEach((side) => side.forget());
    this.work.hidden = false;
    await this.#changed();
  }

  /** Some side's settings have changed: show both anew, from what is kept where it is. */
  async #changed() {
    const image = this.#image;
    if (!image) return;
    this.#tell();
    await Promise.all(this.#sides.map((side) => side.show(image, () => this.#arrived(side))));
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
    const words = this.#sides.map((side) => side.command).join(" ");
    const names = [...new Set(this.#sides.map((side) => side.codec))].join(",");
    const shell = `attar benchmark ${this.#name} --codecs ${names} ${words} -o report`;
    const python = [
      "from attar.codec import images", "from attar.measure import anchors, worker", "",
      `image = images.read("${this.#name}").pixels`,
      ...this.#sides.flatMap((side) => [
        `codec = anchors.find("${side.codec}")`,
        `data = codec.encode(image, ${side.quality ?? "None"})`,
        "print(len(data), worker.distortions(image, codec.decode(data)))",
      ]),
    ].join("\n");
    this.recipe.replaceChildren(h("summary", {}, "The same on the command line and in Python"), h("div", { className: "two" }, code(shell, "the command"), code(python, "the Python")));
    this.recipe.open = open;
  }
}

customElements.define("attar-compare", AttarCompare);
