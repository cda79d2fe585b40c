// Requests to this server's own API, and nothing else. A newer request of the same kind cancels the older one.

/**
 * @typedef {{input: string, ok: boolean, error?: string, id: string, name: string, version: string, licence: string,
 *   description: string, accepts: string, bytes: number, channels: number, size: [number, number] | null,
 *   qualities: [number, number] | null, training: Record<string, unknown>,
 *   latent: {channels: number}, created_by: Record<string, string>}} Model
 * @typedef {{version: number, width: number, height: number, channels: number, model: string,
 *   model_name: string | null, quality: number | null, bytes: number, bpp: number, chunks: Record<string, number>,
 *   skipped_chunks: number[], header_bytes: number, sound: boolean, fault: string | null,
 *   latent_shape: number[] | null, symbols: number[] | null, bits_per_channel: number[] | null,
 *   bits_map: number[][] | null}} Inspection
 * @typedef {{psnr: number | "identical", ssim: number, ms_ssim: number | null, bytes: number, bpp: number}} Comparison
 * @typedef {{name: string, absent: string | null, version: string, unit: string | null, lowest: number,
 *   highest: number}} Codec
 * @typedef {Comparison & {codec: string, codec_version: string, quality: number | null, width: number, height: number,
 *   original_bytes: number, encode_ms: number, decode_ms: number, picture: string | null}} Encoding
 */

/** A sentence of the server, to be shown as it is. */
export class Refused extends Error {}

/**
 * @param {string} path
 * @param {RequestInit & {query?: Record<string, string | number | null>}} [options]
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
    throw new Refused(said.error ?? `The server answered ${answer.status}.`);
  }
  return answer;
}

/** @returns {Promise<Model[]>} */
export const models = async () => (await ask("models")).json();

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
 * @param {{codec: string, quality?: number | null, target_bytes?: number | null, metrics: string, picture: string}} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<Encoding>}
 */
export const encode = async (image, query, signal) =>
  (await ask("encode", { method: "POST", body: image, query, signal })).json();

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
