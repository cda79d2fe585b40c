// A model.json as tables of layers.
import { h } from "./ui.js";

const MOST_LAYERS = 300;

/**
 * The lists of layers in a model.json, each under the name of what holds it.
 * @param {unknown} document
 * @param {string} [name]
 * @returns {{part: string, layers: unknown[]}[]}
 */
export function parts(document, name = "model") {
  if (typeof document !== "object" || document === null) return [];
  return Object.entries(document).flatMap(([key, value]) => {
    if (key === "layers" && Array.isArray(value)) return [{ part: name, layers: value }];
    return Array.isArray(value) ? [] : parts(value, key === "layers" ? name : key);
  });
}

/** @param {unknown} document */
export function layersOf(document) {
  const found = parts(document);
  const count = found.reduce((sum, { layers }) => sum + layers.length, 0);
  const details = h("details", { className: "layers" }, h("summary", {}, count ? `Its ${count} layers` : "Its layers are not told"));
  for (const { part, layers } of found) {
    const rows = layers.slice(0, MOST_LAYERS).map((layer) => {
      const [kind, given] = Object.entries(Object(layer))[0] ?? ["?", {}];
      return h("tr", {}, h("th", { scope: "row" }, kind), h("td", {}, inWords(given)));
    });
    const label = part.replaceAll("_", " ");
    details.append(h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": `Layers of the ${label}` },
      h("table", {}, h("caption", {}, label), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Layer"), h("th", { scope: "col" }, "Arguments"))), h("tbody", {}, ...rows))));
  }
  return details;
}

/** @param {unknown} given */
const inWords = (given) =>
  Object.entries(Object(given)).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ") || "\u2013";
