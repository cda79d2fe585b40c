// Tables as files.

/** A cell of a CSV file (RFC 4180). @param {unknown} value */
function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Rows of the same keys as a CSV file. @param {Record<string, unknown>[]} rows */
export function toCsv(rows) {
  const columns = Object.keys(rows[0] ?? {});
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((cells) => cells.map(cell).join(","));
  return new Blob([`${lines.join("\n")}\n`], { type: "text/csv" });
}

/** @param {unknown} document */
export const toJson = (document) => new Blob([`${JSON.stringify(document, null, 1)}\n`], { type: "application/json" });
