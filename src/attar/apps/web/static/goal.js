// What is wanted of a codec: a quality, or a target that the best file is to keep to, as on the command line.
import { h, keep } from "./ui.js";

/** Kinds of targets: words before and after the number, a first number, its step. */
const KINDS = {
  bytes: { said: "At most \u2026 bytes", first: "20000", step: "1", least: "1" },
  bpp: { said: "At most \u2026 bits per pixel", first: "0.5", step: "any", least: "0" },
  psnr: { said: "At least \u2026 dB PSNR", first: "32", step: "any", least: "0" },
  ssim: { said: "At least \u2026 SSIM", first: "0.95", step: "any", least: "0" },
};
/** @typedef {keyof typeof KINDS} Kind */

export class Goal {
  /** @type {import("./api.js").Codec | null} */
  #codec = null;

  /**
   * @param {string} prefix of the elements' ids and of the settings in the address
   * @param {URLSearchParams} given
   * @param {number} quality at first
   * @param {() => void} changed when it is done, not while the slider moves
   */
  constructor(prefix, given, quality, changed) {
    this.prefix = prefix;
    this.changed = changed;
    this.first = Number(given.get(`${prefix}-q`) ?? quality);
    this.by = h("select", { id: `${prefix}-by`, "aria-label": "Quality or target" }, h("option", { value: "quality" }, "Quality"),
      ...Object.entries(KINDS).map(([kind, { said }]) => h("option", { value: kind }, said)));
    this.slider = h("input", { type: "range", id: `${prefix}-quality`, "aria-label": "Quality" });
    this.number = h("output", { className: "number", htmlFor: `${prefix}-quality` });
    this.value = h("input", { type: "number", id: `${prefix}-value`, "aria-label": "Target" });
    this.element = h("div", { className: "goal" }, this.by, this.slider, this.number, this.value);
    const kind = given.get(`${prefix}-by`) ?? "";
    if (kind in KINDS) this.#show(kind, given.get(`${prefix}-value`));
    else this.#show("quality", null);
    this.by.addEventListener("change", () => this.#set(() => this.#show(this.by.value, null)));
    this.slider.addEventListener("input", () => (this.number.textContent = this.slider.value));
    this.slider.addEventListener("change", () => this.#set(() => undefined));
    this.value.addEventListener("change", () => this.value.reportValidity() && this.#set(() => undefined));
  }

  /** @param {import("./api.js").Codec} codec that it is for */
  for(codec) {
    const { unit, lowest, highest } = (this.#codec = codec);
    this.element.hidden = unit == null;
    if (unit == null) return;
    const value = this.slider.value && this.slider.max ? this.slider.value : String(this.first);
    this.slider.min = String(lowest);
    this.slider.max = String(highest);
    this.slider.value = value;
    this.number.textContent = this.slider.value;
  }

  /** @returns {Kind | null} */
  get kind() {
    return this.by.value === "quality" || !this.#rated ? null : /** @type {Kind} */ (this.by.value);
  }

  /** @returns {number | null} null for a target, and for a codec that takes none */
  get quality() {
    return this.kind || !this.#rated ? null : Number(this.slider.value);
  }

  get target() {
    return Number(this.value.value);
  }

  get #rated() {
    return this.#codec?.unit != null;
  }

  /** What a request says of it. @returns {import("./api.js").Query} */
  get query() {
    return this.kind ? { [`target_${this.kind}`]: this.target } : { quality: this.quality };
  }

  /** Options of `attar compress`. */
  get options() {
    if (this.kind) return ` --target-${this.kind} ${this.target}`;
    return this.quality === null ? "" : ` -q ${this.quality}`;
  }

  /** Take a quality. @param {number | null} quality */
  reach(quality) {
    this.#show("quality", null);
    this.slider.value = String(quality);
    this.number.textContent = this.slider.value;
    this.slider.dispatchEvent(new Event("change"));
  }

  /** As a document, and from one. */
  get settings() {
    if (this.kind) return { target: { [this.kind]: this.target } };
    return this.quality === null ? {} : { quality: this.quality };
  }

  /**
   * Take what {@link settings} gave.
   * @param {unknown} document
   * @param {string} where for the sentence that refuses it
   */
  take(document, where) {
    const given = /** @type {{quality?: unknown, target?: unknown}} */ (document);
    if (given.target !== undefined && given.quality !== undefined) throw new Error(`${where}: one of quality and target may be given`);
    if (!this.#rated && (given.target ?? given.quality) !== undefined) throw new Error(`${where}: ${this.#codec?.name} takes neither a quality nor a target`);
    if (given.target !== undefined) {
      const pairs = Object.entries(/** @type {Record<string, unknown>} */ (Object(given.target)));
      const [kind, value] = pairs[0] ?? [];
      if (pairs.length !== 1 || !kind || !(kind in KINDS) || typeof value !== "number" || !(value > 0)) {
        throw new Error(`${where}.target: expected one of ${Object.keys(KINDS).join(", ")} with a number above 0`);
      }
      this.#show(kind, String(value));
    } else if (given.quality !== undefined) {
      const { lowest, highest } = /** @type {import("./api.js").Codec} */ (this.#codec);
      if (typeof given.quality !== "number" || given.quality < lowest || given.quality > highest) {
        throw new Error(`${where}.quality: expected a number from ${lowest} to ${highest}`);
      }
      this.#show("quality", null);
      this.slider.value = String(given.quality);
      this.number.textContent = this.slider.value;
    }
    this.write();
  }

  /** @param {string} kind @param {string | null} value */
  #show(kind, value) {
    this.by.value = kind;
    const target = kind in KINDS ? KINDS[/** @type {Kind} */ (kind)] : null;
    this.slider.hidden = this.number.hidden = target !== null;
    this.value.hidden = target === null;
    if (!target) return;
    this.value.min = target.least;
    this.value.step = target.step;
    this.value.max = kind === "ssim" ? "1" : "";
    this.value.required = true;
    this.value.value = value !== null && Number(value) > 0 ? value : target.first;
  }

  /** @param {() => void} change */
  #set(change) {
    change();
    this.write();
    this.changed();
  }

  /** Into the address. */
  write() {
    const { prefix, kind } = this;
    keep({ [`${prefix}-q`]: this.quality, [`${prefix}-by`]: kind, [`${prefix}-value`]: kind && this.value.value });
  }
}
