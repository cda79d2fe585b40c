// The frame: screens by address, the theme.
import "./batch.js";
import "./compare.js";
import "./curve.js";
import "./draw.js";
import "./inspect.js";
import "./models.js";
import { h } from "./ui.js";

/** Address, element and name of every screen that there is. */
const SCREENS = [
  { path: "draw", tag: "attar-draw", name: "Draw" },
  { path: "compare", tag: "attar-compare", name: "Compare" },
  { path: "curve", tag: "attar-curve", name: "Curve" },
  { path: "batch", tag: "attar-batch", name: "Batch" },
  { path: "models", tag: "attar-models", name: "Models and runs" },
  { path: "inspect", tag: "attar-inspect", name: "Inspect" },
];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const nav = /** @type {HTMLElement} */ (document.getElementById("nav"));

function route() {
  const path = location.hash.replace(/^#\/?/, "").split("?")[0];
  const screen = SCREENS.find((known) => known.path === path) ?? SCREENS[0];
  if (main.firstElementChild?.localName === screen.tag) return;
  document.title = `${screen.name} \u00b7 Attar`;
  nav.replaceChildren(
    ...SCREENS.map(({ path: to, name }) =>
      h("a", { href: `#/${to}`, ...(to === screen.path ? { "aria-current": "page" } : {}) }, name),
    ),
  );
  main.replaceChildren(document.createElement(screen.tag));
}

const THEMES = ["auto", "light", "dark"];
const button = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));

/** @param {string} theme */
function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = { auto: "\u25d0 Auto", light: "\u2600\ufe0e Light", dark: "\u263e\ufe0e Dark" }[theme] ?? "";
  button.setAttribute("aria-label", `Theme: ${theme}. Change it.`);
  localStorage.setItem("theme", theme);
}

button.addEventListener("click", () => {
  const now = THEMES.indexOf(localStorage.getItem("theme") ?? "auto");
  setTheme(THEMES[(now + 1) % THEMES.length]);
});
setTheme(THEMES.find((theme) => theme === localStorage.getItem("theme")) ?? "auto");

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the screen
  main.focus();
});
// A file that misses its zone must not replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
addEventListener("hashchange", route);
route();
