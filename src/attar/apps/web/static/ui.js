// Small pieces that every screen uses.

/**
 * An element with properties, listeners (`onclick`), attributes and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.startsWith("aria")) Reflect.set(element, name, value);
    else element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Say something to those who do not see the page. @param {string} sentence */
export function announce(sentence) {
  const place = document.getElementById("announce");
  if (place) place.textContent = sentence;
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A block of code with a button that copies it. @param {string} text @param {string} name */
export function code(text, name) {
  const button = h("button", { type: "button", "aria-label": `Copy ${name}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      announce(`${name} copied`);
    } catch {
      button.textContent = "Select it";
    }
  });
  return h("div", { className: "code" }, h("pre", { tabIndex: 0, "aria-label": name, role: "group" }, h("code", {}, text)), button);
}

/**
 * A button that picks a file, and the same for files dropped on `zone`.
 * @param {string} label
 * @param {string} accept
 * @param {HTMLElement} zone
 * @param {(file: File) => void} taken
 */
export const filePicker = (label, accept, zone, taken) => filesPicker(label, accept, zone, ([file]) => taken(file), false);

/**
 * The same for several files at once.
 * @param {string} label
 * @param {string} accept
 * @param {HTMLElement} zone
 * @param {(files: File[]) => void} taken
 * @param {boolean} [multiple]
 */
export function filesPicker(label, accept, zone, taken, multiple = true) {
  const input = h("input", { type: "file", accept, multiple, className: "unseen", tabIndex: -1, "aria-label": label });
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length) taken(files);
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.stopPropagation(); // a zone may lie in another
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove("over");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) taken(files);
  });
  return h("span", {}, h("button", { type: "button", onclick: () => input.click() }, label), input);
}

/** The settings in the address. */
export function settings() {
  return new URLSearchParams(location.hash.split("?")[1] ?? "");
}

/** Write settings into the address; null takes one out. @param {Record<string, string | number | null>} changes */
export function keep(changes) {
  const found = settings();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) found.delete(key);
    else found.set(key, String(value));
  }
  const words = found.toString();
  history.replaceState(null, "", `${location.hash.split("?")[0] || "#/draw"}${words ? `?${words}` : ""}`);
}

/** @param {unknown} error */
export const sentence = (error) => (error instanceof Error ? error.message : String(error));

/** @param {number | "identical" | null} value @param {number} digits @param {string} [unit] */
export const shown = (value, digits, unit = "") =>
  typeof value === "number" ? `${value.toFixed(digits)}${unit}` : (value ?? "\u2013");

/** A file's name as one word of a command line. @param {string} name */
export const shellWord = (name) => (/^[\w.\/:][\w.\/:@%+,-]*$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);

/** A text as Python writes it. @param {string} text */
export const pythonWord = (text) => JSON.stringify(text);

/** A small file as a word that an address can hold. @param {Blob} file */
export async function toWord(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The file in such a word, or null where it is none. @param {string} word */
export function fromWord(word) {
  try {
    const text = atob(word.replaceAll("-", "+").replaceAll("_", "/"));
    return new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))]);
  } catch {
    return null;
  }
}
