// Gray pixels: from a drawing, as a file, on a canvas. No codec and no metric: those are the server's.

/** Gray pixels, row by row. @typedef {{width: number, height: number, values: Uint8ClampedArray}} Gray */

/**
 * Means of square blocks of a canvas: what the model is given of a drawing.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width of the result
 * @param {number} height of the result
 * @returns {Gray}
 */
export function shrink(context, width, height) {
  const { width: from, height: down } = context.canvas;
  const { data } = context.getImageData(0, 0, from, down);
  const [across, along] = [from / width, down / height];
  const values = new Uint8ClampedArray(width * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let y = row * along; y < (row + 1) * along; y++) {
        for (let x = column * across; x < (column + 1) * across; x++) sum += data[4 * (y * from + x)];
      }
      values[row * width + column] = Math.round(sum / (across * along));
    }
  }
  return { width, height, values };
}

/** A PGM file, which every image program reads. @param {Gray} gray */
export function toPgm({ width, height, values }) {
  return new Blob([`P5\n${width} ${height}\n255\n`, new Uint8Array(values)], { type: "image/x-portable-graymap" });
}

/** The gray pixels of an image file that a browser knows. @param {Blob} file @returns {Promise<Gray>} */
export async function fromImage(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, values: Uint8ClampedArray.from({ length: width * height }, (_, at) => data[4 * at]) };
}

/** @param {HTMLCanvasElement} canvas @param {Gray} gray */
export function paint(canvas, { width, height, values }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, at) => image.data.set([value, value, value, 255], 4 * at));
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** Absolute difference of two pictures of one size. @param {Gray} a @param {Gray} b @returns {Gray} */
export function difference(a, b) {
  return { ...a, values: a.values.map((value, at) => Math.abs(value - b.values[at])) };
}
