// Inspect: what a .attar file says of itself, whether it is sound, and where its bits went.
import * as api from "./api.js";
import { bars, heat } from "./charts.js";
import { toPgm } from "./pixels.js";
import { announce, code, filePicker, fromWord, h, keep, sentence, settings, toWord } from "./ui.js";

/** @typedef {import("./api.js").Inspection} Inspection */

const LAYOUTS = ["", "gray", "gray and alpha", "RGB", "RGB and alpha"];
const CHUNKS = { icc: "Colour profile", exif: "EXIF", xmp: "XMP", alpha: "Alpha", latents: "Latents" };
const MOST_IN_ADDRESS = 1024;

class AttarInspect extends HTMLElement {
  #work = new api.Latest();
  /** @type {string | null} */
  #url = null;

  drop = h("section", { className: "drop", "aria-label": "File" });
  fault = h("p", { className: "fault", role: "alert" });
  found = h("div", { className: "screen", id: "found", hidden: true });

  connectedCallback() {
    this.className = "screen";
    this.drop.append(
      h("p", {}, "Drop a .attar file here"),
      h("div", { className: "row" },
        filePicker("Choose a file", ".attar", this.drop, (file) => this.#show(file, file.name)),
        h("button", { type: "button", id: "sample", onclick: () => this.#sample() }, "Take a sample")));
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Inspect a file"), h("p", { className: "muted" }, "Every byte of a .attar file is accounted for. See what each is for, and where in the image the bits went.")),
      this.drop, this.fault, this.found);
    const word = settings().get("file");
    const file = word === null ? null : fromWord(word);
    if (file) this.#show(file, "image.attar");
  }

  disconnectedCallback() {
    this.#work.stop();
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  async #sample() {
    try {
      const values = Uint8ClampedArray.from((await api.samples())[5]);
      const file = await api.compress(toPgm({ width: 28, height: 28, values }), { model: "digits" });
      await this.#show(file, "five.attar");
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {Blob} file @param {string} name */
  async #show(file, name) {
    this.fault.textContent = "";
    try {
      const found = await this.#work.run(async (signal) => {
        const facts = await api.inspect(file, signal);
        return { facts, picture: facts.sound ? await api.decompress(file, signal) : null };
      });
      if (!found) return;
      keep({ file: file.size <= MOST_IN_ADDRESS ? await toWord(file) : null });
      if (this.#url) URL.revokeObjectURL(this.#url);
      this.#url = found.picture && URL.createObjectURL(found.picture);
      this.#fill(found.facts, name);
      announce(`${name}: ${found.facts.bytes} bytes, ${found.facts.sound ? "sound" : found.facts.fault}`);
    } catch (error) {
      this.found.hidden = true;
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {Inspection} facts @param {string} name */
  #fill(facts, name) {
    const state = facts.sound ? "\u2713 Sound: every checksum matches, that of the symbols included" : `\u2717 ${facts.fault}`;
    const rows = {
      File: name,
      State: state,
      Image: `${facts.width} \u00d7 ${facts.height} pixels, ${LAYOUTS[facts.channels]}`,
      Size: `${facts.bytes.toLocaleString("en")} bytes, ${facts.bpp.toFixed(3)} bits per pixel`,
      Model: `${facts.model_name ?? "not installed"} (${facts.model})`,
      Quality: facts.quality === null ? "the model has a single rate" : String(facts.quality),
      Latent: facts.latent_shape?.join(" \u00d7 ") ?? "\u2013",
      Format: `version ${facts.version}`,
    };
    const list = h("dl", { className: "facts", id: "facts" });
    for (const [term, words] of Object.entries(rows)) list.append(h("dt", {}, term), h("dd", {}, words));
    this.found.replaceChildren(
      h("div", { className: "two" },
        h("section", { className: "card", "aria-label": "Facts" }, h("h2", {}, "What it says of itself"), list),
        h("section", { className: "card", "aria-label": "Image" }, h("h2", {}, "The image in it"), this.#picture(facts))),
      h("section", { className: "card", "aria-label": "Bytes" }, h("h2", {}, "Byte by byte"), ...layout(facts)),
      this.#bits(facts),
      code(`attar info ${name}\nattar verify ${name}`, "the commands"));
    this.found.hidden = false;
  }

  /** @param {Inspection} facts */
  #picture({ width, height }) {
    if (!this.#url) return h("p", { className: "muted" }, "A file that is not sound is never shown as a picture.");
    const tiny = Math.max(width, height) < 280;
    return h("div", { className: "frame" }, h("img", { src: this.#url, className: tiny ? "tiny" : "", alt: `The image, ${width} by ${height} pixels` }));
  }

  /** @param {Inspection} facts */
  #bits({ bits_per_channel: channels, bits_map: map }) {
    const card = h("section", { className: "card", "aria-label": "Bits" }, h("h2", {}, "Where the bits went"));
    if (!channels) {
      card.append(h("p", { className: "muted" }, "This model's networks choose its tables for each image; its bits are not told apart here."));
      return card;
    }
    const total = channels.reduce((sum, bits) => sum + bits, 0);
    const most = Math.max(...channels);
    const words = `${channels.length} latent channels take ${total.toFixed(1)} bits, channel ${channels.indexOf(most)} the most: ${most.toFixed(1)}`;
    const each = channels.map((bits, at) => h("tr", {}, h("th", { scope: "row" }, String(at)), h("td", { className: "number" }, bits.toFixed(2))));
    card.append(
      bars(channels, words), h("p", { className: "small muted", id: "channels" }, `${words}.`),
      h("details", {}, h("summary", {}, "As a table"),
        h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Bits of each channel" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Channel"), h("th", { scope: "col", className: "number" }, "Bits"))), h("tbody", {}, ...each)))));
    if (map) {
      const largest = Math.max(...map.map((row) => Math.max(...row)));
      const told = `Bits of each place of the latent, dark for none, light for ${largest.toFixed(0)}`;
      card.append(h("figure", { className: "frame" }, heat(map, told), h("figcaption", { className: "small muted" }, `${told}.`)));
    }
    return card;
  }
}

/** The parts of a file: a bar in proportion, and a table. @param {Inspection} facts */
function layout({ bytes, header_bytes: header, chunks, skipped_chunks: skipped }) {
  const bodies = Object.values(chunks).reduce((sum, size) => sum + size, 0);
  /** @type {[string, number][]} */
  const parts = [
    ["Magic and header", header],
    ...Object.entries(chunks).map(([kind, size]) => /** @type {[string, number]} */ ([CHUNKS[/** @type {keyof CHUNKS} */ (kind)] ?? kind, size])),
    [`Types, lengths and checksums of chunks${skipped.length ? ", and unknown chunks" : ""}`, bytes - header - bodies],
  ];
  const bar = h("div", { className: "layout", "aria-hidden": "true" });
  for (const [, size] of parts) {
    const piece = h("span");
    piece.style.flex = `${size} 0 0`;
    bar.append(piece);
  }
  const rows = parts.map(([what, size]) => h("tr", {}, h("th", { scope: "row" }, what), h("td", { className: "number" }, size.toLocaleString("en")), h("td", { className: "number" }, `${((100 * size) / bytes).toFixed(1)} %`)));
  const head = h("tr", {}, h("th", { scope: "col" }, "Part"), h("th", { scope: "col", className: "number" }, "Bytes"), h("th", { scope: "col", className: "number" }, "Share"));
  return [bar, h("table", { id: "parts" }, h("thead", {}, head), h("tbody", {}, ...rows))];
}

customElements.define("attar-inspect", AttarInspect);
