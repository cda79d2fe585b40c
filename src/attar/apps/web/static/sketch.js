// The drawing: a list of actions on a black canvas, so that each can be undone.
import { shrink } from "./pixels.js";

/**
 * @typedef {{kind: "clear"}} Clear
 * @typedef {{kind: "sample", values: number[]}} Sample
 * @typedef {{kind: "stroke", brush: number, points: [number, number][]}} Stroke
 */

export const SIDE = 280;

export class Sketch {
  /** @type {(Clear | Sample | Stroke)[]} */
  actions = [];

  /** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height of the model's images */
  constructor(canvas, width, height) {
    canvas.width = canvas.height = SIDE;
    this.size = { width, height };
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    this.redraw();
  }

  get empty() {
    const last = this.actions.at(-1);
    return last === undefined || last.kind === "clear";
  }

  /** @param {Clear | Sample | Stroke} action */
  add(action) {
    this.actions.push(action);
    this.redraw();
  }

  undo() {
    this.actions.pop();
    this.redraw();
  }

  redraw() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIDE, SIDE);
    const start = this.actions.findLastIndex(({ kind }) => kind !== "stroke");
    for (const action of this.actions.slice(Math.max(start, 0))) {
      if (action.kind === "sample") this.#sample(action.values);
      else if (action.kind === "stroke") this.#stroke(action);
    }
  }

  /** The pixels that the model is given. */
  pixels() {
    return shrink(this.context, this.size.width, this.size.height);
  }

  /** @param {number[]} values */
  #sample(values) {
    const { width, height } = this.size;
    values.forEach((value, at) => {
      this.context.fillStyle = `rgb(${value} ${value} ${value})`;
      this.context.fillRect((at % width) * (SIDE / width), Math.floor(at / width) * (SIDE / height), SIDE / width, SIDE / height);
    });
  }

  /** @param {Stroke} stroke */
  #stroke({ brush, points }) {
    const { context } = this;
    context.strokeStyle = "#fff";
    context.lineWidth = brush;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
    context.stroke();
  }
}
