// Bars and heat maps, each with words for those who do not see them.

/**
 * Numbers as bars up and down from zero.
 * @param {number[]} values
 * @param {string} words
 */
export function bars(values, words) {
  const most = Math.max(1e-9, ...values.map(Math.abs));
  const signed = values.some((value) => value < 0);
  const [zero, height] = signed ? [1, 2] : [1, 1];
  const drawn = svg("svg", { class: "bars", viewBox: `0 0 ${values.length} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": words });
  values.forEach((value, at) => {
    const size = Math.abs(value) / most;
    drawn.append(svg("rect", { x: at + 0.15, y: value > 0 ? zero - size : zero, width: 0.7, height: size }));
  });
  drawn.append(svg("line", { x1: 0, x2: values.length, y1: zero, y2: zero }));
  return drawn;
}

/**
 * A map of numbers as a picture, dark for none and light for the most.
 * @param {number[][]} rows
 * @param {string} words
 */
export function heat(rows, words) {
  const canvas = document.createElement("canvas");
  canvas.className = "tiny";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  [canvas.width, canvas.height] = [rows[0].length, rows.length];
  const most = Math.max(1e-9, ...rows.map((row) => Math.max(...row)));
  const image = new ImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, at) => {
    const share = value / most;
    // Black, rose, white: the lightness rises all the way, so that it is told without the colour.
    image.data.set([Math.min(1, share * 1.6) * 255, share ** 1.6 * 255, share ** 1.2 * 255, 255], 4 * at);
  });
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}

/** An SVG element. @param {string} name @param {Record<string, string | number>} attributes */
export function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
