// A ZIP file of files that are compressed already: stored, names in UTF-8 (APPNOTE.TXT 6.3.10, 4.3).

const MOST_FILES = 0xffff;
const MOST_BYTES = 0xffffffff;
const UTF8_NAMES = 0x0800;
const VERSION = 20;

/**
 * @param {{name: string, data: Blob}[]} files with names that differ
 * @returns {Promise<Blob>} which refers to the files' bytes and copies none
 */
export async function zip(files) {
  const total = files.reduce((sum, { name, data }) => sum + data.size + 2 * name.length * 3 + 76, 22);
  if (files.length > MOST_FILES || total > MOST_BYTES) {
    throw new Error(`${files.length} files of ${total} bytes are more than one ZIP file holds: ${MOST_FILES} files, 4 GiB. Save them in parts.`);
  }
  const table = crcTable();
  const now = dosTime(new Date());
  /** @type {BlobPart[]} */
  const parts = [];
  /** @type {BlobPart[]} */
  const index = [];
  let at = 0;
  let indexBytes = 0;
  for (const { name, data } of files) {
    const word = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await data.arrayBuffer()), table);
    const common = [[2, VERSION], [2, UTF8_NAMES], [2, 0], [4, now], [4, crc], [4, data.size], [4, data.size], [2, word.length], [2, 0]];
    const local = packed([[4, 0x04034b50], ...common]);
    const central = packed([[4, 0x02014b50], [2, VERSION], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]);
    parts.push(local, word, data);
    index.push(central, word);
    at += local.length + word.length + data.size;
    indexBytes += central.length + word.length;
  }
  const end = packed([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, indexBytes], [4, at], [2, 0]]);
  return new Blob([...parts, ...index, end], { type: "application/zip" });
}

/**
 * Names that every system can hold and tell apart, whatever their case.
 * @param {string[]} names
 */
export function tellApart(names) {
  const taken = new Set();
  return names.map((given) => {
    const safe = given.replace(/[\u0000-\u001f\u007f<>:"/\\|?*]/g, "_").replace(/^\.+/, "_").replace(/[. ]+$/, "") || "file";
    const dot = safe.lastIndexOf(".") > 0 ? safe.lastIndexOf(".") : safe.length;
    let name = safe;
    for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${safe.slice(0, dot)} (${number})${safe.slice(dot)}`;
    taken.add(name.toLowerCase());
    return name;
  });
}

/** Numbers of given widths in bytes, least significant first. @param {number[][]} fields */
function packed(fields) {
  return Uint8Array.from(fields.flatMap(([width, value]) => Array.from({ length: width }, (_, place) => (value >>> (8 * place)) & 255)));
}

/** @param {Date} date */
function dosTime(date) {
  const day = ((Math.max(date.getFullYear(), 1980) - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  return ((day << 16) | time) >>> 0;
}

function crcTable() {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
    return value;
  });
}

/** @param {Uint8Array} bytes @param {Uint32Array} table */
function crc32(bytes, table) {
  let value = 0xffffffff;
  for (const byte of bytes) value = table[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
