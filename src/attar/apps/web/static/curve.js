// Curve: the rate-distortion points of every codec for one picture, as they are measured.
import * as api from "./api.js";
import { COLOURS, mark, nearest, neighbour, plot, toFile } from "./plot.js";
import { Source } from "./source.js";
import { toCsv, toJson } from "./tables.js";
import { announce, code, download, h, keep, pythonWord, sentence, settings, shellWord, shown } from "./ui.js";

/** @typedef {{plan: api.Plan | null, points: api.Point[], end: api.End | null}} Measured */

const REFERENCE = "jpeg";
/** What was measured of an image is not measured again when its screen is come back to. @type {WeakMap<Blob, Measured>} */
const known = new WeakMap();

class AttarCurve extends HTMLElement {
  #work = new api.Latest();
  #leaving = new AbortController();
  /** @type {File | null} */
  #image = null;
  /** @type {Measured} */
  #found = { plan: null, points: [], end: null };
  #drawing = 0;
  /** @type {import("./plot.js").Line[]} */
  #lines = [];
  /** @type {Set<string>} codecs that are not drawn */
  #hidden = new Set();

  source = new Source(this, "Drop or paste an image, or", ([file]) => this.#take(file));
  fault = h("p", { className: "fault", role: "alert" });
  work = h("div", { className: "screen", hidden: true });
  bar = h("progress", { id: "progress", max: 1, value: 0, "aria-label": "Points measured" });
  said = h("span", { className: "number small", id: "said" });
  stop = h("button", { type: "button", id: "stop", onclick: () => this.#work.stop() }, "Stop");
  again = h("button", { type: "button", id: "again", hidden: true, onclick: () => this.#image && this.#measure(this.#image) }, "Measure anew");
  metric = h("select", { id: "metric", onchange: () => this.#set({ metric: this.metric.value }) });
  log = h("input", { type: "checkbox", id: "log", onchange: () => this.#set({ log: this.log.checked ? "1" : null }) });
  legend = h("div", { className: "row", role: "group", "aria-label": "Codecs" });
  figure = h("div", { className: "figure" });
  point = h("p", { className: "small number", id: "point" }, "Point at a mark, or go there with the tab key, to read its numbers.");
  savings = h("div", { className: "stack" });
  reference = h("select", { id: "reference", onchange: () => this.#set({ ref: this.reference.value }) });
  table = h("details", { id: "table" });
  recipe = h("details", {});

  async connectedCallback() {
    this.className = "screen";
    const given = settings();
    this.log.checked = given.get("log") === "1";
    this.#hidden = new Set((given.get("hide") ?? "").split(",").filter(Boolean));
    this.replaceChildren(
      h("div", { className: "intro" }, h("h1", {}, "Every codec on one picture"), h("p", { className: "muted" }, "Rate against distortion: the points that attar benchmark measures, with the same codecs, qualities and metrics.")),
      this.source.card, this.fault, this.work);
    this.#build();
    this.#listen();
    await this.source.start(this.#leaving.signal);
  }

  disconnectedCallback() {
    this.#work.stop();
    this.#leaving.abort();
    cancelAnimationFrame(this.#drawing);
  }

  #build() {
    /** @param {string} name @param {() => void} onclick */
    const save = (name, onclick) => h("button", { type: "button", id: `save-${name.toLowerCase()}`, onclick }, name);
    this.work.append(
      h("section", { className: "card", "aria-label": "Curves" },
        h("div", { className: "row spread" },
          h("div", { className: "row" }, h("label", { className: "small" }, "Metric", this.metric), h("label", { className: "small" }, this.log, "Logarithmic rate")),
          h("div", { className: "row" }, save("CSV", () => this.#saveCsv()), save("JSON", () => this.#saveJson()), save("SVG", () => this.#saveSvg()))),
        h("div", { className: "row" }, this.bar, this.said, this.stop, this.again),
        this.figure, this.legend, this.point,
        h("p", { className: "muted small" }, "Keys: the arrows go from point to point. Enter or a click opens a point in Compare, beside the nearest one of the reference."), this.table),
      h("section", { className: "card", "aria-label": "Savings" },
        h("div", { className: "row spread" }, h("h2", {}, "Bits at equal quality"), h("label", { className: "small" }, "Against", this.reference)), this.savings),
      this.recipe);
  }

  #listen() {
    new ResizeObserver(() => this.#later()).observe(this.figure);
    this.figure.addEventListener("click", (event) => this.#open(keyOf(event)));
    this.figure.addEventListener("pointerover", (event) => this.#tell(keyOf(event)));
    this.figure.addEventListener("focusin", (event) => this.#tell(keyOf(event)));
    this.figure.addEventListener("keydown", (event) => {
      const key = keyOf(event);
      if (!key || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter" || event.key === " ") this.#open(key);
      else if (/^(Arrow|Home|End)/.test(event.key)) this.#focus(neighbour(this.#lines, key, event.key)?.key);
      else return;
      event.preventDefault();
    });
  }

  /** @param {File} image */
  #take(image) {
    this.#image = image;
    const kept = known.get(image);
    this.work.hidden = false;
    if (kept) {
      this.#found = kept;
      this.#planned();
      this.#progress(false);
      this.#later();
    } else this.#measure(image);
  }

  /** @param {File} image */
  async #measure(image) {
    this.fault.textContent = "";
    const found = (this.#found = /** @type {Measured} */ ({ plan: null, points: [], end: null }));
    this.#progress(true);
    this.#later();
    try {
      await this.#work.run((signal) => api.curve(image, (line) => found === this.#found && this.#arrived(line, image), signal));
    } catch (error) {
      if (found === this.#found) this.fault.textContent = sentence(error);
    } finally {
      if (found === this.#found) this.#progress(false);
    }
  }

  /** @param {api.Plan | api.Point | api.End} line @param {File} image */
  #arrived(line, image) {
    const found = this.#found;
    if (line.kind === "point") found.points.push({ ...line, row: { ...line.row, image: image.name } });
    else if (line.kind === "plan") {
      found.plan = line;
      this.#planned();
    } else {
      found.end = line;
      known.set(image, found);
      announce(`${found.points.length} points are measured`);
    }
    this.#progress(true);
    this.#later();
  }

  /** What depends on the codecs and metrics that will come. */
  #planned() {
    const plan = /** @type {api.Plan} */ (this.#found.plan);
    const given = settings();
    this.metric.replaceChildren(...plan.metrics.map(({ column, title }) => h("option", { value: column }, title)));
    const metric = given.get("metric");
    this.metric.value = plan.metrics.some(({ column }) => column === metric) ? String(metric) : plan.metrics[0].column;
    const names = plan.codecs.map(({ name }) => name);
    this.reference.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    const wanted = [given.get("ref"), REFERENCE, names[0]].find((name) => names.includes(name ?? ""));
    this.reference.value = wanted ?? "";
    this.legend.replaceChildren(
      ...plan.codecs.map(({ name, version }) => {
        const box = h("input", { type: "checkbox", checked: !this.#hidden.has(name), onchange: () => this.#hide(name, !box.checked) });
        return h("label", { className: "small", title: version }, box, mark(colour(name, plan)), name);
      }),
      ...plan.absent.map(({ name, reason }) => h("span", { className: "small muted" }, `${name} is absent: ${reason}`)));
    this.#recipe(names);
  }

  /** @param {boolean} going */
  #progress(going) {
    const { plan, points, end } = this.#found;
    this.bar.max = plan?.points || 1;
    this.bar.value = points.length;
    this.stop.hidden = !going || end !== null;
    this.again.hidden = going || end !== null;
    this.bar.hidden = end !== null;
    const failed = points.filter(({ row }) => row.status !== "ok").length;
    const faults = failed ? `, ${failed} failed (see the table)` : "";
    const size = plan ? `${plan.width} \u00d7 ${plan.height} pixels, ` : "";
    this.said.textContent = plan ? `${size}${points.length} of ${plan.points} points${faults}` : "Reading the image";
  }

  /** @param {string} name @param {boolean} hide */
  #hide(name, hide) {
    if (hide) this.#hidden.add(name);
    else this.#hidden.delete(name);
    this.#set({ hide: this.#hidden.size ? [...this.#hidden].join(",") : null });
  }

  /** @param {Record<string, string | null>} changes */
  #set(changes) {
    keep(changes);
    this.#later();
  }

  #later() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const { plan, points } = this.#found;
    if (!plan || !this.figure.clientWidth) return this.figure.replaceChildren();
    const column = this.metric.value;
    this.#lines = plan.codecs.filter(({ name }) => !this.#hidden.has(name)).map(({ name }) => ({
      codec: name,
      colour: colour(name, plan),
      dots: points.filter(({ row, levels }) => row.codec === name && typeof levels[column] === "number")
        .map(({ row, levels }) => ({ codec: name, key: keyFor(row), x: row.bpp, y: /** @type {number} */ (levels[column]), words: inWords(row) }))
        .sort((a, b) => a.x - b.x),
    }));
    const title = plan.metrics.find((metric) => metric.column === column);
    const width = this.figure.clientWidth;
    const frame = { x: "Rate (bits per pixel)", y: title?.axis ?? "", log: this.log.checked, width, height: Math.round(Math.max(300, Math.min(520, 0.56 * width))) };
    const focused = document.activeElement instanceof SVGElement ? document.activeElement.dataset.key : undefined;
    this.figure.replaceChildren(plot(this.#lines, frame, `${title?.title} against rate, ${points.length} points`));
    this.#reachable(focused);
    if (focused) this.#focus(focused);
    this.#tabulate();
    this.#saved();
  }

  /** One point can be reached with the tab key. @param {string | undefined} key */
  #reachable(key) {
    const all = [...this.figure.querySelectorAll(".point")];
    for (const one of all) one.setAttribute("tabindex", "-1");
    const one = all.find((element) => element instanceof SVGElement && element.dataset.key === key) ?? all[0];
    one?.setAttribute("tabindex", "0");
    return one;
  }

  /** @param {string | undefined} key */
  #focus(key) {
    if (!key) return;
    const one = this.#reachable(key);
    if (one instanceof SVGElement) one.focus({ preventScroll: true });
  }

  /** @param {string | undefined} key */
  #tell(key) {
    const dot = this.#lines.flatMap(({ dots }) => dots).find((one) => one.key === key);
    if (dot) this.point.textContent = dot.words;
  }

  /** Show a point in Compare, the reference's nearest on the left. @param {string | undefined} key */
  #open(key) {
    const rows = new Map(this.#found.points.map(({ row }) => [keyFor(row), row]));
    const row = rows.get(key ?? "");
    if (!row) return;
    const others = this.#found.points.filter((other) => other.row.codec === this.reference.value && other.row.bpp);
    const near = nearest(others.map((other) => ({ codec: "", key: keyFor(other.row), x: other.row.bpp, y: 0, words: "" })), row.bpp);
    const left = row.codec === this.reference.value ? null : (rows.get(near?.key ?? "") ?? null);
    const words = new URLSearchParams();
    const photo = settings().get("photo");
    if (photo) words.set("photo", photo);
    for (const [side, one] of /** @type {[string, api.Row | null][]} */ ([["left", left], ["right", row]])) {
      words.set(side, one?.codec ?? "png");
      if (one && one.quality !== null) words.set(`${side}-q`, String(one.quality));
    }
    location.hash = `#/compare?${words}`;
  }

  #tabulate() {
    const { points } = this.#found;
    const columns = ["Codec", "Quality", "Bytes", "bpp", "PSNR", "SSIM", "MS-SSIM", "Encode ms", "Decode ms"];
    const head = h("tr", {}, ...columns.map((column, at) => h("th", { scope: "col", className: at ? "number" : "" }, column)));
    const body = points.map(({ row }) => h("tr", {}, h("th", { scope: "row" }, row.codec), ...(row.status === "ok" ? cells(row).map((cell) => h("td", { className: "number" }, cell)) : [h("td", { className: "number" }, shown(row.quality, 0)), h("td", { colSpan: 7 }, `failed: ${row.error}`)])));
    const { open } = this.table;
    this.table.replaceChildren(h("summary", {}, "As a table"), h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "All points" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body))));
    this.table.open = open;
  }

  /** The BD-rates against the reference. */
  #saved() {
    const { end } = this.#found;
    const column = this.metric.value;
    if (!end) return this.savings.replaceChildren(h("p", { className: "muted small" }, "These need all points."));
    if (end.fault) return this.savings.replaceChildren(h("p", { className: "muted small" }, end.fault));
    const own = end.deltas.filter(({ reference, metric }) => reference === this.reference.value && metric === column);
    const rows = own.map(({ codec, rate, overlap, refused }) => h("tr", {}, h("th", { scope: "row" }, codec),
      ...(rate === null ? [h("td", { colSpan: 2, className: "small" }, refused)] : [h("td", { className: "number" }, percent(rate)), h("td", { className: "number" }, `${(100 * overlap).toFixed(0)} %`)])));
    const head = h("tr", {}, h("th", { scope: "col" }, "Codec"), h("th", { scope: "col", className: "number" }, "BD-rate"), h("th", { scope: "col", className: "number" }, "Shared range"));
    this.savings.replaceChildren(
      own.length ? h("table", { id: "deltas" }, h("thead", {}, head), h("tbody", {}, ...rows)) : h("p", { className: "muted small" }, "There is no other curve."),
      h("p", { className: "muted small" }, `Mean difference of the bits at equal ${this.metric.selectedOptions[0]?.textContent}, on this picture; below 0 % the codec needs fewer than ${this.reference.value}.`));
  }

  /** @param {string[]} names */
  #recipe(names) {
    const name = this.#image?.name || "pasted.png";
    const shell = `attar benchmark ${shellWord(name)} --codecs ${names.map(shellWord).join(",")} --repeats 1 -o report`;
    const python = [
      "from attar.measure import benchmark, curves", "",
      `plan = benchmark.plan([${pythonWord(name)}], ${JSON.stringify(names).replaceAll(",", ", ")})`,
      'rows = benchmark.run(plan, "report", repeats=1)',
      "for curve in curves.mean_curves(rows):",
      `    print(curve.name, curve.points(curves.METRICS["psnr"]))`,
    ].join("\n");
    const { open } = this.recipe;
    this.recipe.replaceChildren(h("summary", {}, "The same on the command line and in Python"), h("div", { className: "two" }, code(shell, "the command"), code(python, "the Python")));
    this.recipe.open = open;
  }

  get #stem() {
    return (this.#image?.name || "image").replace(/\.[^.]*$/, "");
  }

  #saveCsv() {
    download(toCsv(this.#found.points.map(({ row }) => row)), `${this.#stem}-curve.csv`);
  }

  #saveJson() {
    const { plan, points, end } = this.#found;
    download(toJson({ image: this.#image?.name, codecs: plan?.codecs, absent: plan?.absent, rows: points.map(({ row }) => row), bd: end?.deltas ?? [] }), `${this.#stem}-curve.json`);
  }

  #saveSvg() {
    const drawn = this.figure.querySelector("svg");
    if (drawn) download(toFile(drawn), `${this.#stem}-${this.metric.value}.svg`);
  }
}

/** @param {api.Row} row */
const keyFor = (row) => `${row.codec} ${row.quality}`;

/** The point that an event is of. @param {Event} event */
function keyOf(event) {
  const point = event.target instanceof Element ? event.target.closest(".point") : null;
  return point instanceof SVGElement ? point.dataset.key : undefined;
}

/** Attar's first bundle has the page's own colour, and each rival always the same. @param {string} name @param {api.Plan} plan */
function colour(name, plan) {
  const own = plan.codecs.filter((codec) => codec.name.startsWith("attar:")).map((codec) => codec.name);
  const rivals = plan.codecs.map((codec) => codec.name).filter((one) => !own.includes(one));
  const places = [own[0] ?? "", ...rivals, ...own.slice(1)];
  return places.indexOf(name) % COLOURS;
}

/** @param {api.Row} row */
const cells = (row) => [
  shown(row.quality, 0), row.bytes.toLocaleString("en"), row.bpp.toFixed(3), shown(row.psnr, 2), shown(row.ssim, 4),
  shown(row.ms_ssim, 4), row.encode_ms.toFixed(1), row.decode_ms.toFixed(1),
];

/** @param {api.Row} row */
function inWords(row) {
  const quality = row.quality === null ? "" : `, quality ${row.quality}`;
  return `${row.codec}${quality}: ${row.bytes.toLocaleString("en")} bytes, ${row.bpp.toFixed(3)} bpp, PSNR ${shown(row.psnr, 2, " dB")}, SSIM ${shown(row.ssim, 4)}, MS-SSIM ${shown(row.ms_ssim, 4)}`;
}

/** @param {number} value */
const percent = (value) => `${value > 0 ? "+" : "\u2212"}${Math.abs(value).toFixed(1)} %`;

customElements.define("attar-curve", AttarCurve);
