// The frame of the page: which of its pages is shown, the keyboard, and light or dark.

import { h, morph, ask } from "./dom.js";
import { get, post, connection } from "./api.js";
import * as now from "./now.js";
import * as tree from "./tree.js";
import * as handlers from "./handlers.js";
import * as letters from "./letters.js";
import * as scheduled from "./scheduled.js";
import * as streams from "./streams.js";
import * as trace from "./trace.js";
import * as cluster from "./cluster.js";
import * as why from "./why.js";

const PAGES = [
  ["now", "Now", now], ["tree", "Tree", tree], ["handlers", "Handlers", handlers], ["letters", "Dead letters", letters],
  ["streams", "Streams", streams], ["trace", "Trace", trace], ["cluster", "Cluster", cluster],
  ["scheduled", "Scheduled", scheduled], ["why", "Why", why],
];
const main = document.getElementById("main");
let about = { name: "", store: null, is_live: true };
let close = () => {};
let shown = "";

function place() {
  const [name, query] = location.hash.replace(/^#\//, "").split("?");
  return { name: PAGES.some(([each]) => each === name) ? name : "now", given: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

function show() {
  const { name, given } = place();
  const [, title, page] = PAGES.find(([each]) => each === name);
  close();
  document.title = `${title} – ${about.name || "uno_actors"}`;
  if (shown !== name) main.replaceChildren();
  shown = name;
  connection.state = "waiting";
  close = page.show(main, given, about) ?? (() => {});
  frame();
}

function frame() {
  const { name } = place();
  morph(document.getElementById("top"),
    h("p", { class: "name" }, h("strong", {}, about.name || "uno_actors"),
      about.store && about.store !== about.name && h("span", { class: "muted store" }, about.store)),
    h("p", { class: "tools" },
      h("span", { class: `connection ${connection.state}` },
        { live: "live", waiting: "waiting", ended: "the system has stopped", still: "" }[connection.state]),
      h("button", { type: "button", title: "Light, dark, or as the system says", on: { click: theme } }, themeName()),
      h("button", { type: "button", title: "Keys", "aria-label": "Keys", on: { click: keys } }, "?"),
      h("button", { type: "button", on: { click: logOut } }, "Log out")));
  morph(document.getElementById("pages"),
    h("ul", {}, PAGES.map(([each, title], index) => h("li", {},
      h("a", { href: `#/${each}`, "aria-current": each === name ? "page" : null },
        title, h("kbd", { "aria-hidden": "true" }, index + 1))))));
}

connection.changed = frame;

async function logOut() {
  await post("logout", {});
  location.assign("login");
}

function themeName() {
  return { light: "Light", dark: "Dark" }[document.documentElement.dataset.theme] ?? "Auto";
}

function theme() {
  const next = { Auto: "light", Light: "dark", Dark: "" }[themeName()];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("uno-actors-theme", next); } catch { /* it lasts until the page is closed */ }
  frame();
}

const KEYS = [
  ["1 – 9", "the pages"], ["/", "the search field"], ["j  k", "next and previous line"], ["Enter", "open the line"],
  ["x", "select a dead letter"], ["r", "retry what is selected"], ["← →", "on the slider of a stream: one version"], ["?", "this list"],
];

function keys() {
  ask("Keys", (done) => [
    h("table", { class: "keys" }, h("tbody", {}, KEYS.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, what))))),
    h("p", { class: "buttons" }, h("button", { type: "button", class: "main", on: { click: () => done() } }, "Close"))]);
}

function step(by) {
  const rows = [...main.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
  (next.matches("a,button,[tabindex]") ? next : next.querySelector("a,button,summary,input,[tabindex]"))?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches?.("input:not([type=checkbox]):not([type=range]),textarea,select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const index = Number(event.key) - 1;
  if (PAGES[index]) location.hash = `#/${PAGES[index][0]}`;
  else if (event.key === "/") main.querySelector("input[type=search],input[type=text]")?.focus();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "?") keys();
  else {
    const action = main.querySelector(`[data-hotkey="${CSS.escape(event.key)}"]:not([disabled])`);
    const inRow = document.activeElement?.closest?.("[data-row]")?.querySelector(`[data-rowkey="${CSS.escape(event.key)}"]`);
    if (inRow) inRow.click();
    else if (action) action.click();
    else return;
  }
  event.preventDefault();
});

addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
get("about").then((found) => { about = found; show(); }, (error) => morph(main, h("p", { class: "wrong" }, error.message)));
