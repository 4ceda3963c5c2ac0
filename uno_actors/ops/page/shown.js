// Numbers, times and payloads for people.

import { h } from "./dom.js";

export const number = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value >= 10 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.00005) return "0 ms";
  if (value < 1) return `${value < 0.01 ? (value * 1000).toFixed(1) : Math.round(value * 1000)} ms`;
  if (value < 60) return `${Number.isInteger(value) ? value : value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60), hours = Math.floor(minutes / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} days`;
  return hours ? two(hours, "h", minutes % 60, "min") : two(minutes, "min", Math.floor(value % 60), "s");
}

const two = (large, name, small, part) => `${large} ${name}${small ? ` ${small} ${part}` : ""}`;

export const count = (value, what) => `${number(value)} ${what}${value === 1 ? "" : "s"}`;

const DAY = { year: "numeric", month: "short", day: "numeric" };
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };

// A time, with the whole of it on hovering.
export function when(text, { millis = false } = {}) {
  const date = new Date(text);
  const isToday = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString("en", TIME) + (millis ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : "");
  return h("time", { datetime: text, title: text }, isToday ? time : `${date.toLocaleDateString("en", DAY)} ${time}`);
}

export function ago(text) {
  const past = (Date.now() - new Date(text).getTime()) / 1000;
  const shown = past < 60 ? `${Math.floor(past)} s` : seconds(past).replace(/ \d+ s$/, "");
  return h("time", { datetime: text, title: text }, past < 5 ? "just now" : `${shown} ago`);
}

const GOOD = new Set(["live", "running", "idle", "handling", "up", "done"]);
const BAD = new Set(["stopped", "failed", "gave up", "no answer", "dead letter", "stuck"]);

// The state of something, as a word with a colour.
export function state(word) {
  const kind = GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : word === "standby" ? "quiet" : "warn";
  return h("span", { class: `state ${kind}` }, word);
}

export function empty(title, ...more) {
  return h("div", { class: "empty" }, h("h2", {}, title), more);
}

export const code = (text) => h("code", {}, text);

// JSON for reading: names in one colour, values in another; long texts are cut, and opened on demand.
export function tree(value, depth = 0) {
  if (Array.isArray(value)) {
    if (!value.length) return h("span", { class: "v" }, "[ ]");
    return h("ul", { class: "json" }, value.map((each, index) => h("li", {}, h("span", { class: "k" }, index), tree(each, depth + 1))));
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return h("span", { class: "v" }, "{ }");
    return h("ul", { class: "json" }, entries.map(([name, each]) => h("li", {}, h("span", { class: "k" }, name), tree(each, depth + 1))));
  }
  return h("span", { class: `v ${value === null ? "null" : typeof value}` }, brief(value));
}

export function brief(value, longest = 300) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text === undefined ? "" : text.length > longest ? `${text.slice(0, longest)}… (${number(text.length)} characters)` : text;
}

// The entries of a table and of the tables in it, one level deep.
function flat(entries) {
  return entries.flatMap(([name, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length ? Object.entries(value) : [[name, value]]);
}

// The payload of an event on one line.
export function fields(event) {
  if (event.payload === null) return h("span", { class: "muted" }, event.left_out);
  const entries = Object.entries(event.payload);
  if (!entries.length) return h("span", { class: "muted" }, "no fields");
  return h("span", { class: "fields" }, flat(entries).map(([name, value]) => [h("span", { class: "k" }, name), h("span", { class: "v" }, brief(value, 80)), " "]));
}

export const href = (page, given = {}) => {
  const pairs = Object.entries(given).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `#/${page}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`;
};

export function streamLink(type, id, version) {
  if (id === null || id === undefined) return h("span", { class: "muted" }, "no aggregate");
  return h("a", { class: "id", href: href("streams", { type: type ?? "", id, version }) }, `${type ?? ""} ${id}`);
}
