// Where a screen's image comes from: dropped, picked, pasted, or a photograph of the package.
import * as api from "./api.js";
import { filesPicker, h, keep, sentence, settings } from "./ui.js";

const PHOTOS = ["kitten", "mountain", "earthrise"];
const TAKEN = "image/*,.attar,.jxl,.avif,.webp,.pgm,.ppm";

/** The image of the screen before, so that it need not be dropped again. @type {{files: File[], photo: string | null}} */
const carried = { files: [], photo: null };

export class Source {
  fault = h("p", { className: "fault", role: "alert" });

  /**
   * @param {HTMLElement} zone on which files may be dropped
   * @param {string} said before the buttons
   * @param {(files: File[]) => void} taken
   * @param {boolean} [multiple]
   */
  constructor(zone, said, taken, multiple = false) {
    this.taken = taken;
    this.most = multiple ? 3 : 1;
    const samples = PHOTOS.map((name) => h("button", { type: "button", onclick: () => this.#photo(name) }, name[0].toUpperCase() + name.slice(1)));
    const picker = filesPicker("Choose one", TAKEN, zone, (files) => this.#take(files, null), multiple);
    this.card = h("section", { className: "card", "aria-label": "Image" },
      h("div", { className: "row" }, h("span", {}, said), picker, h("span", { className: "muted" }, "or take"), ...samples), this.fault);
  }

  /** Take the photograph that the address names, or the image of the screen before. @param {AbortSignal} signal */
  async start(signal) {
    addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) this.#take(files, null);
    }, { signal });
    const photo = settings().get("photo");
    if (photo && photo !== carried.photo && PHOTOS.includes(photo)) await this.#photo(photo);
    else if (carried.files.length) this.#take(carried.files.slice(0, this.most), carried.photo);
  }

  /** @param {string} name */
  async #photo(name) {
    try {
      this.#take([new File([await api.photo(name)], `${name}.png`)], name);
    } catch (error) {
      this.fault.textContent = sentence(error);
    }
  }

  /** @param {File[]} files @param {string | null} photo */
  #take(files, photo) {
    this.fault.textContent = "";
    carried.files = files;
    carried.photo = photo;
    keep({ photo });
    this.taken(files);
  }
}
