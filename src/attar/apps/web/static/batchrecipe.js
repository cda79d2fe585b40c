// What a batch does, as a command line and as Python.
import { code, h, pythonWord, shellWord } from "./ui.js";

/**
 * @typedef {{codec: string, goal: import("./goal.js").Goal, effort: number, convert: boolean, strip: boolean}} Order
 */

/**
 * @param {string[]} names of the files
 * @param {Order} order
 */
export function recipe(names, order) {
  const kinds = [...new Set(names.map((name) => `*.${name.split(".").at(-1)}`))];
  const images = kinds.filter((kind) => kind !== "*.attar");
  const chosen = images.length || kinds.length ? images : ["*.png"];
  const own = order.codec.startsWith("attar:");
  const shell = [
    ...(chosen.length ? [own ? compress(chosen, order) : benchmark(chosen, order)] : []),
    ...(kinds.includes("*.attar") ? ["attar decompress *.attar -o out/"] : []),
  ].join("\n");
  return h("div", { className: "two" }, code(shell, "the command"), code(python(chosen, order, own), "the Python"));
}

/** @param {string[]} images @param {Order} order */
function compress(images, { codec, goal, effort, convert, strip }) {
  const flags = [effort ? ` --effort ${effort}` : "", convert ? " --convert" : "", strip ? " --strip" : ""].join("");
  return `attar compress ${images.join(" ")} -m ${shellWord(codec.slice(6))}${goal.options}${flags} -o out/`;
}

/** @param {string[]} images @param {Order} order */
function benchmark(images, { codec, goal }) {
  const qualities = goal.quality === null ? "" : ` --qualities ${codec}=${goal.quality}`;
  return `attar benchmark ${images.join(" ")} --codecs ${codec}${qualities} --repeats 1 -o report  # measures; it keeps no files`;
}

/** @param {string[]} images @param {Order} order @param {boolean} own */
function python(images, { codec, goal, effort, convert, strip }, own) {
  const globs = images.map((kind) => `*Path().glob(${pythonWord(kind)})`).join(", ");
  const target = goal.kind ? `Target(${pythonWord(goal.kind)}, ${goal.target})` : null;
  const read = `images.read(path${convert ? ", convert=True" : ""})${own ? (strip ? ".stripped()" : "") : ".pixels"}`;
  const level = goal.quality === null ? "" : `, quality=${goal.quality}`;
  const data = own
    ? target ? `compress_to(${target}, codec, ${read}${effort ? `, effort=${effort}` : ""})` : `codec.compress(${read}${level}${effort ? `, effort=${effort}` : ""})`
    : `codec.encode(image, ${target ? `reached(codec, image, ${target})` : (goal.quality ?? "None")})`;
  const suffix = own ? ".attar" : `.${codec.split("-")[0]}`;
  return [
    "from pathlib import Path", "",
    ...(own ? ["import attar"] : []),
    ...(target && own ? ["from attar.apps.cli.codec import compress_to"] : []),
    ...(target && !own ? ["from attar.apps.web.trials import reached"] : []),
    "from attar.codec import images",
    ...(target ? ["from attar.codec.targets import Target"] : []),
    ...(own ? [] : ["from attar.measure import anchors"]),
    "", 'Path("out").mkdir(exist_ok=True)',
    own ? `codec = attar.load(${pythonWord(codec.slice(6))})` : `codec = anchors.find(${pythonWord(codec)})`,
    `for path in [${globs}]:`,
    ...(own ? [] : [`    image = ${read}`]),
    `    data = ${data}`,
    `    (Path("out") / path.name).with_suffix(${pythonWord(suffix)}).write_bytes(data)`,
  ].join("\n");
}
