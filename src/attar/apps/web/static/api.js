// Requests to this server's own API, and nothing else. A newer request of the same kind cancels the older one.

/**
 * @typedef {{input: string, ok: boolean, error?: string, id: string, name: string, version: string, licence: string,
 *   description: string, accepts: string, bytes: number, channels: number, size: [number, number] | null,
 *   qualities: [number, number] | null, training: Record<string, unknown>,
 *   latent: {channels: number}, created_by: Record<string, string>, file: string, shipped: boolean,
 *   graphs: Record<string, number>, tables: number, model: unknown}} Model
 * @typedef {{version: number, width: number, height: number, channels: number, model: string,
 *   model_name: string | null, quality: number | null, bytes: number, bpp: number, chunks: Record<string, number>,
 *   skipped_chunks: number[], header_bytes: number, sound: boolean, fault: string | null,
 *   latent_shape: number[] | null, symbols: number[] | null, bits_per_channel: number[] | null,
 *   bits_map: number[][] | null}} Inspection
 * @typedef {{psnr: number | "identical", ssim: number, ms_ssim: number | null, bytes: number, bpp: number}} Comparison
 * @typedef {{name: string, absent: string | null, version: string, unit: string | null, lowest: number,
 *   highest: number}} Codec
 * @typedef {Comparison & {codec: string, codec_version: string, quality: number | null, width: number, height: number,
 *   original_bytes: number, encode_ms: number | null, decode_ms: number, picture: string | null}} Encoding
 * @typedef {Record<string, string | number | null>} Query
 * @typedef {{codec: string, codec_version: string, quality: number | null, width: number, height: number,
 *   input_bytes: number, bytes: number, bpp: number, saved_percent: number, suffix: string, encode_ms: number | null,
 *   decode_ms: number, psnr: number | "identical" | null, ssim: number | null, ms_ssim: number | null}} Conversion
 * @typedef {{codec: string, quality: number | null, status: string, error: string, bytes: number, bpp: number,
 *   psnr: number | "identical", ssim: number, ms_ssim: number | null, encode_ms: number, decode_ms: number,
 *   image: string}} Row a row of rows.csv, with more columns than are named here
 * @typedef {{kind: "plan", width: number, height: number, channels: number, points: number,
 *   codecs: {name: string, version: string}[], absent: {name: string, reason: string}[],
 *   metrics: {column: string, title: string, axis: string}[]}} Plan
 * @typedef {{kind: "point", row: Row, levels: Record<string, number | null>}} Point
 * @typedef {{reference: string, codec: string, metric: string, rate: number | null, gain: number | null,
 *   overlap: number, refused: string}} Delta
 * @typedef {{kind: "end", deltas: Delta[], fault: string | null}} End
 */

/** A sentence of the server, to be shown as it is. */
export class Refused extends Error {
  /** @param {string} said @param {number} [status] */
  constructor(said, status = 0) {
    super(said);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {RequestInit & {query?: Query}} [options]
 * @returns {Promise<Response>}
 */
async function ask(path, { query = {}, ...options } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null);
  const words = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(`api/${path}${words ? `?${words}` : ""}`, options);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is attar serve still running?");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(said.error ?? `The server answered ${answer.status}.`, answer.status);
  }
  return answer;
}

/** @returns {Promise<Model[]>} */
export const models = async () => (await ask("models")).json();

/** One training run with its history. @param {string} id @param {AbortSignal} [signal] @returns {Promise<import("./run.js").RunWhole>} */
export const run = async (id, signal) => (await ask(`runs/${encodeURIComponent(id)}`, { signal })).json();

/** @returns {Promise<number[][]>} */
export const samples = async () => (await ask("samples")).json();

/**
 * @param {Blob} image
 * @param {{model: string, effort?: number}} query
 * @param {AbortSignal} [signal]
 */
export const compress = async (image, query, signal) =>
  (await ask("compress", { method: "POST", body: image, query, signal })).blob();

/** @param {Blob} file @param {AbortSignal} [signal] */
export const decompress = async (file, signal) =>
  (await ask("decompress", { method: "POST", body: file, signal })).blob();

/** @param {Blob} file @param {AbortSignal} [signal] @returns {Promise<Inspection>} */
export const inspect = async (file, signal) =>
  (await ask("inspect", { method: "POST", body: file, signal })).json();

/** @param {Blob} a @param {Blob} b @param {AbortSignal} [signal] @returns {Promise<Comparison>} */
export const compare = async (a, b, signal) => {
  const form = new FormData();
  form.append("a", a, "a");
  form.append("b", b, "b");
  return (await ask("compare", { method: "POST", body: form, signal })).json();
};

/** @returns {Promise<Codec[]>} */
export const codecs = async () => (await ask("codecs")).json();

/** @param {string} name */
export const photo = async (name) => (await ask(`photos/${name}`)).blob();

/**
 * @param {Blob} image
 * @param {Query} query codec, quality or a target, metrics, picture
 * @param {AbortSignal} [signal]
 * @returns {Promise<Encoding>}
 */
export const encode = async (image, query, signal) =>
  (await ask("encode", { method: "POST", body: image, query, signal })).json();

/**
 * An existing file beside its original.
 * @param {Blob} original
 * @param {Blob} file
 * @param {Query} query metrics, picture
 * @param {AbortSignal} [signal]
 * @returns {Promise<Encoding>}
 */
export const decode = async (original, file, query, signal) => {
  const form = new FormData();
  form.append("a", original, "a");
  form.append("b", file, "b");
  return (await ask("decode", { method: "POST", body: form, query, signal })).json();
};

/**
 * One file of a batch: what became of it, and its numbers.
 * @param {Blob} file
 * @param {Query} query codec, quality or a target, effort, convert, strip
 * @param {AbortSignal} [signal]
 * @returns {Promise<{made: Blob, row: Conversion}>}
 */
export const convert = async (file, query, signal) => {
  const answer = await ask("convert", { method: "POST", body: file, query, signal });
  return { made: await answer.blob(), row: JSON.parse(answer.headers.get("attar-row") ?? "{}") };
};

/**
 * The points of every codec for an image, each as soon as it is measured.
 * @param {Blob} image
 * @param {(line: Plan | Point | End) => void} taken
 * @param {AbortSignal} signal
 */
export async function curve(image, taken, signal) {
  const answer = await ask("curve", { method: "POST", body: image, signal });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let ended = false;
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const found = JSON.parse(line);
      ended ||= found.kind === "end";
      taken(found);
    }
  }
  if (!ended) throw new Refused("The server broke off before the last point.");
}

/** Runs one task at a time: starting the next cancels the one before. */
export class Latest {
  /** @type {AbortController | null} */
  #current = null;

  /**
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} task
   * @returns {Promise<T | undefined>} undefined where a later task took over
   */
  async run(task) {
    this.stop();
    const own = (this.#current = new AbortController());
    try {
      const result = await task(own.signal);
      return own.signal.aborted ? undefined : result;
    } catch (error) {
      if (own.signal.aborted) return undefined;
      throw error;
    }
  }

  stop() {
    this.#current?.abort();
  }
}
