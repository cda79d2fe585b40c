// One side of Compare: a codec, its quality, and what became of the picture.
import * as api from "./api.js";
import { Latest } from "./api.js";
import { Goal } from "./goal.js";
import { announce, filePicker, h, keep, sentence, shown } from "./ui.js";

/** @typedef {{row: api.Encoding, url: string}} Kept */

const DEFAULTS = { left: ["jpeg", 50], right: ["webp", 50] };
const MOST_KEPT = 24;
/** The choice that is no codec: a file that exists already. */
const FILE = "file";

export class Side {
  #work = new Latest();
  /** @type {Map<string, Kept>} */
  #kept = new Map();
  /** @type {ImageData | null} the original's pixels, for the map of differences */
  #original = null;
  /** @type {[number, number] | null} */
  size = null;
  bytes = 0;

  picture = h("img", { alt: "" });
  errors = h("canvas", { role: "img" });
  fault = h("p", { className: "fault", role: "alert" });
  numbers = h("dl", { className: "facts number" });
  /** @type {File | null} */
  file = null;
  fileName = h("span", { className: "small" });
  /** @type {number | null} the quality at which a target was reached */
  found = null;

  /**
   * @param {string} name left or right
   * @param {api.Codec[]} codecs
   * @param {URLSearchParams} given
   * @param {() => void} changed
   * @param {() => void} match
   */
  constructor(name, codecs, given, changed, match) {
    const [codec, quality] = DEFAULTS[/** @type {"left" | "right"} */ (name)];
    const title = name[0].toUpperCase() + name.slice(1);
    this.name = name;
    this.codecs = codecs;
    this.choice = h("select", { id: `${name}-codec`, "aria-label": `${title} codec` }, ...codecs.map((known) => h("option", { value: known.name }, known.name)),
      h("option", { value: FILE }, "A file of yours"));
    const known = [FILE, ...codecs.map((one) => one.name)];
    this.choice.value = known.includes(given.get(name) ?? "") ? (given.get(name) ?? "") : String(codec);
    this.goal = new Goal(name, given, Number(quality), changed);
    this.matchButton = h("button", { type: "button", onclick: match }, "Match the other side's size");
    this.errors.setAttribute("aria-label", `Differences of the ${name} side from the original, light where large`);
    this.picture.alt = `The ${name} side's picture`;
    this.choice.addEventListener("change", () => {
      this.#range();
      this.#write();
      changed();
    });
    this.card = h("section", { className: "card", id: name, "aria-label": `${title} side` });
    this.picker = h("div", { className: "row" },
      filePicker("Choose the file", "image/*,.attar,.jxl,.avif,.webp", this.card, (file) => {
        this.open(file);
        changed();
      }), this.fileName);
    this.card.append(h("div", { className: "row spread" }, h("h2", {}, title), this.choice), this.goal.element, this.matchButton, this.picker, this.numbers, this.fault);
    this.#range();
  }

  /** Take a file in the place of a codec. @param {File} file */
  open(file) {
    this.file = file;
    this.fileName.textContent = file.name;
    this.choice.value = FILE;
    this.#range();
    this.#write();
  }

  /** Whether it shows a file that exists already. */
  get existing() {
    return this.codec === FILE;
  }

  get codec() {
    return this.choice.value;
  }

  /** @returns {number | null} null for a codec that takes none */
  get quality() {
    return this.goal.kind ? this.found : this.goal.quality;
  }

  /** Its settings as a document. */
  get settings() {
    return { codec: this.codec, ...this.goal.settings };
  }

  /** Take what {@link settings} gave. @param {unknown} document */
  take(document) {
    const { codec, ...rest } = /** @type {{codec?: unknown}} */ (Object(document));
    const strange = Object.keys(rest).find((key) => key !== "quality" && key !== "target");
    if (strange) throw new Error(`${this.name}: nothing is called ${JSON.stringify(strange)}; known are codec, quality, target`);
    const names = [...this.choice.options].map(({ value }) => value);
    if (typeof codec !== "string" || !names.includes(codec)) {
      throw new Error(`${this.name}.codec: no codec is called ${JSON.stringify(codec)}; known are ${names.join(", ")}`);
    }
    this.choice.value = codec;
    this.#range();
    this.goal.take(rest, this.name);
    this.#write();
  }

  #range() {
    const known = this.codecs.find(({ name }) => name === this.codec);
    this.goal.for(known ?? { name: FILE, absent: null, version: "", unit: null, lowest: 0, highest: 0 });
    this.matchButton.hidden = known?.unit == null;
    this.picker.hidden = !this.existing;
  }

  #write() {
    keep({ [this.name]: this.codec });
    this.goal.write();
  }

  /** Leave the picture that was looked at. */
  forget() {
    this.#work.stop();
    for (const { url } of this.#kept.values()) URL.revokeObjectURL(url);
    this.#kept.clear();
    this.#original = null;
    this.size = null;
  }

  /**
   * The picture at the settings as they are: at once where it is kept, else from the server; then its metrics.
   * @param {Blob} image
   * @param {() => void} arrived
   */
  async show(image, arrived) {
    const key = JSON.stringify([this.codec, this.goal.query, ...(this.existing ? [this.file?.name, this.file?.size, this.file?.lastModified] : [])]);
    this.fault.textContent = "";
    this.found = null;
    if (this.existing && !this.file) {
      this.#work.stop();
      this.numbers.replaceChildren();
      this.picture.removeAttribute("src");
      this.errors.width = 0;
      return;
    }
    const { codec } = this;
    const query = { codec, ...this.goal.query };
    /** @param {api.Query} asked @param {AbortSignal} signal */
    const ask = (asked, signal) => (this.existing && this.file ? api.decode(image, this.file, asked, signal) : api.encode(image, { ...query, ...asked }, signal));
    try {
      await this.#work.run(async (signal) => {
        let kept = this.#kept.get(key);
        if (!kept) {
          this.card.classList.add("busy");
          const row = await ask({ metrics: "false", picture: "true" }, signal);
          kept = { row, url: URL.createObjectURL(fromBase64(row.picture ?? "")) };
          row.picture = null;
          this.#keep(key, kept);
          await this.#fill(kept, image, arrived);
          kept.row = await ask({ metrics: "true", picture: "false" }, signal);
          announce(`${this.name}: ${kept.row.bytes} bytes, PSNR ${shown(kept.row.psnr, 2, " dB")}`);
        }
        await this.#fill(kept, image, arrived);
      });
    } catch (error) {
      this.fault.textContent = sentence(error);
    } finally {
      this.card.classList.remove("busy");
    }
  }

  /** Take the quality whose file is at most as large. @param {Blob} image @param {number} bytes */
  async match(image, bytes) {
    try {
      const found = await this.#work.run((signal) => api.encode(image, { codec: this.codec, target_bytes: bytes, metrics: "false", picture: "false" }, signal));
      if (!found) return;
      this.goal.reach(found.quality);
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {string} key @param {Kept} kept */
  #keep(key, kept) {
    this.#kept.set(key, kept);
    for (const [old, { url }] of this.#kept) {
      if (this.#kept.size <= MOST_KEPT) break;
      URL.revokeObjectURL(url);
      this.#kept.delete(old);
    }
  }

  /** @param {Kept} kept @param {Blob} image @param {() => void} arrived */
  async #fill({ row, url }, image, arrived) {
    this.bytes = row.bytes;
    this.size = [row.width, row.height];
    this.found = row.quality;
    /** @type {Record<string, string>} */
    const rows = {
      ...(this.goal.kind ? { Quality: `${row.quality}, found for the target` } : {}),
      Size: `${row.bytes.toLocaleString("en")} bytes`,
      "Of the original": `${((100 * row.bytes) / row.original_bytes).toFixed(1)} %`,
      Rate: `${row.bpp.toFixed(3)} bpp`,
      Time: `${row.encode_ms === null ? "" : `${row.encode_ms.toFixed(0)} ms in, `}${row.decode_ms.toFixed(0)} ms out`,
      PSNR: shown(row.psnr, 2, " dB"),
      SSIM: shown(row.ssim, 4),
      "MS-SSIM": shown(row.ms_ssim, 4),
    };
    this.numbers.replaceChildren(...Object.entries(rows).flatMap(([term, words]) => [h("dt", {}, term), h("dd", {}, words)]));
    if (this.picture.src !== url) {
      this.picture.src = url;
      await this.picture.decode();
      await this.#differ(image);
    }
    arrived();
  }

  /** Draw the map of differences, at most 64 of 255 being the lightest. @param {Blob} image */
  async #differ(image) {
    const [width, height] = /** @type {[number, number]} */ (this.size);
    this.#original ??= pixels(await bitmap(image), width, height);
    const { data } = this.#original;
    const found = pixels(this.picture, width, height);
    for (let at = 0; at < data.length; at += 4) {
      const most = Math.max(Math.abs(data[at] - found.data[at]), Math.abs(data[at + 1] - found.data[at + 1]), Math.abs(data[at + 2] - found.data[at + 2]));
      const light = Math.min(255, 4 * most);
      found.data.set([light, (light * light) / 255, light * 0.8, 255], at);
    }
    this.errors.width = width;
    this.errors.height = height;
    this.errors.getContext("2d")?.putImageData(found, 0, 0);
  }
}

/** An image's pixels as they are in the file; of kinds that this browser does not know, from the server. @param {Blob} image */
async function bitmap(image) {
  try {
    return await createImageBitmap(image, { colorSpaceConversion: "none" });
  } catch {
    const { picture } = await api.encode(image, { codec: "png", metrics: "false", picture: "true" });
    return createImageBitmap(fromBase64(picture ?? ""), { colorSpaceConversion: "none" });
  }
}

/** @param {CanvasImageSource} source @param {number} width @param {number} height */
function pixels(source, width, height) {
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(width, height).getContext("2d"));
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** @param {string} text */
function fromBase64(text) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}
