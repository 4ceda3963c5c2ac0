// Streams: find events, and read one stream with the state of its aggregate at each version.

import { h, morph } from "./dom.js";
import { attempt, connection, get } from "./api.js";
import { brief, count, empty, fields, href, number, streamLink, tree, when } from "./shown.js";

export function show(main, given, about) {
  connection.state = "still";
  connection.changed();
  return given.type !== undefined && given.id !== undefined && !given.find ? stream(main, given, about) : search(main, given);
}

// --- finding -------------------------------------------------------------------------------------------------

const FILTERS = [["id", "Aggregate id"], ["type", "Aggregate type"], ["event", "Event"], ["topic", "Topic, such as a.* or a.>"], ["correlation", "Correlation id"], ["since", "Since (UTC)"], ["until", "Until (UTC)"]];

function search(main, given) {
  let found, failure, isBusy = false;
  const asked = Object.fromEntries(FILTERS.map(([name]) => [name, given[name]]));
  const redraw = () => morph(main, draw());
  const ask = async (before) => {
    isBusy = true;
    redraw();
    try {
      const more = await get("events", { ...asked, before });
      found = before ? { ...more, events: [...found.events, ...more.events], searched: found.searched + more.searched } : more;
      failure = undefined;
    } catch (error) { failure = error; }
    isBusy = false;
    redraw();
  };
  const go = (event) => {
    event.preventDefault();
    const next = Object.fromEntries(new FormData(event.target));
    const target = href("streams", { ...next, find: 1 });
    if (location.hash === target) ask();
    else location.hash = target;
  };
  const isFiltered = Object.values(asked).some(Boolean);
  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, "Streams"), h("span", { class: "muted" }, "what was recorded, the newest first")),
    h("form", { class: "panel search", role: "search", on: { submit: go } },
      FILTERS.map(([name, title]) => h("label", { key: name }, h("span", {}, title),
        h("input", { type: name === "id" ? "search" : "text", name, value: asked[name] ?? "", autocomplete: "off", spellcheck: "false", placeholder: name === "since" || name === "until" ? "2026-05-01T12:00" : null }))),
      h("span", { class: "buttons" }, h("button", { type: "submit", class: "main" }, "Find"),
        isFiltered && h("a", { class: "button", href: "#/streams" }, "Clear"))),
    failure && h("p", { class: "wrong" }, failure.message),
    found?.streams.length > 0 && h("section", { class: "panel" }, h("h2", {}, "Streams of this id"),
      h("ul", { class: "plain" }, found.streams.map((each) => h("li", { "data-row": "" }, streamLink(each.type, each.id), h("span", { class: "muted" }, ` ${count(each.version, "event")}`))))),
    found && (found.events.length ? h("section", { class: "panel" }, table(found.events)) : !found.before &&
      empty(isFiltered ? "Nothing found" : "Nothing is recorded yet", h("p", {}, isFiltered ? "No recorded event matches all of these." : "Events appear here as soon as a command has recorded some."))),
    h("p", { class: "buttons after" },
      isBusy ? h("span", { class: "muted" }, "Searching …")
        : found?.before && h("button", { type: "button", on: { click: () => ask(found.before) } }, found.events.length ? "Search further back" : "Nothing among the latest events: search further back"),
      found && h("span", { class: "muted" }, `${count(found.searched, "event")} searched`)),
  ];
  ask();
  return () => {};
}

function table(events) {
  return h("div", { class: "scroll" }, h("table", { class: "events" },
    h("thead", {}, h("tr", {}, ["Position", "Time", "Event", "Aggregate", "Fields", "Trace"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, events.map((event) => h("tr", { key: event.position, "data-row": "" },
      h("td", { class: "num" }, number(event.position)), h("td", {}, when(event.timestamp)), h("td", { class: "id" }, event.event_type),
      h("td", {}, streamLink(event.aggregate_type, event.aggregate_id, event.aggregate_version), event.aggregate_version && h("span", { class: "muted" }, ` @${event.aggregate_version}`)),
      h("td", { class: "cut" }, fields(event)),
      h("td", {}, event.correlation_id && h("a", { href: href("trace", { correlation: event.correlation_id }), "aria-label": `Trace of position ${event.position}` }, "trace")))))));
}

// --- one stream ----------------------------------------------------------------------------------------------

const PART = 100;

function stream(main, given) {
  let last = 0, version = 0, hasState = true, failure, stateFailure;
  let asking = 0, timer;
  const events = new Map(); // by version
  const states = new Map();
  const redraw = () => morph(main, draw());

  const load = async (before) => {
    const part = await get("stream", { type: given.type, id: given.id, before, limit: PART });
    last = Math.max(last, part.stream.version);
    hasState = part.stream.state;
    for (const event of part.events) events.set(event.aggregate_version, event);
  };
  const begin = async () => {
    try {
      await load();
      version = Math.min(Number(given.version) || last, last);
      if (!events.has(version)) await load(version + 1 + PART / 2);
      await look();
    } catch (error) { failure = error; }
    redraw();
  };
  const look = async () => {
    const wanted = version;
    if (!events.has(wanted)) await attempt(() => load(wanted + PART / 2));
    if (!hasState || states.has(wanted)) return redraw();
    const number_ = ++asking;
    try {
      const found = await get("state", { type: given.type, id: given.id, version: wanted });
      states.set(wanted, found);
      stateFailure = undefined;
    } catch (error) { if (number_ === asking) stateFailure = error; }
    return redraw();
  };
  const move = (to) => {
    version = Math.min(last, Math.max(1, to));
    history.replaceState(null, "", href("streams", { type: given.type, id: given.id, version }));
    redraw();
    clearTimeout(timer);
    timer = setTimeout(look, states.has(version) ? 0 : 60);
  };
  const newer = async () => {
    const before = last;
    await attempt(() => load());
    if (last > before && version === before) move(last);
    else redraw();
  };

  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, h("a", { href: "#/streams" }, "Streams"), " ", h("span", { class: "id" }, `${given.type} ${given.id}`)),
      last > 0 && h("span", { class: "muted" }, count(last, "event"))),
    failure && h("p", { class: "wrong" }, failure.message),
    last > 0 && h("div", { class: "panel slider" },
      h("label", { for: "version" }, "Version ", h("b", {}, number(version)), ` of ${number(last)}`),
      h("button", { type: "button", "aria-label": "One version back", disabled: version <= 1, on: { click: () => move(version - 1) } }, "‹"),
      h("input", { id: "version", type: "range", min: 1, max: last, value: version, on: { input: (event) => move(Number(event.target.value)) } }),
      h("button", { type: "button", "aria-label": "One version on", disabled: version >= last, on: { click: () => move(version + 1) } }, "›"),
      h("button", { type: "button", on: { click: newer } }, "Latest")),
    last > 0 && h("div", { class: "two stream" },
      h("nav", { class: "panel timeline", "aria-label": "Versions" }, h("h2", {}, "Timeline"), timeline()),
      h("div", { class: "details" }, eventOf(), changesOf(), stateOf())),
  ];

  const timeline = () => {
    const shown = [];
    const from = Math.min(last, Math.max(version + 12, 25));
    for (let each = from; each >= Math.max(1, from - 40); each -= 1) if (events.has(each)) shown.push(events.get(each));
    return h("ol", { class: "plain" },
      from < last && h("li", { class: "muted small" }, `${count(last - from, "later event")}`),
      shown.map((event) => h("li", { key: event.aggregate_version, "data-row": "" },
        h("button", { type: "button", "aria-current": event.aggregate_version === version ? "true" : null, on: { click: () => move(event.aggregate_version) } },
          h("span", { class: "num muted" }, number(event.aggregate_version)), h("span", {}, event.event_type), h("span", { class: "muted small" }, when(event.timestamp))))),
      from - 40 > 1 && h("li", { class: "muted small" }, `${count(from - 41, "earlier event")}`));
  };

  const eventOf = () => {
    const event = states.get(version)?.event ?? events.get(version);
    if (!event) return h("section", { class: "panel", key: "event" }, h("p", { class: "muted" }, "Loading …"));
    return h("section", { class: "panel", key: "event" },
      h("h2", {}, event.event_type, h("span", { class: "muted" }, ` version ${number(event.aggregate_version)}`)),
      h("p", { class: "facts" }, h("span", {}, when(event.timestamp, { millis: true })), h("span", {}, `position ${number(event.position)}`),
        event.topic && h("span", {}, "topic ", h("code", {}, event.topic)),
        event.correlation_id && h("span", {}, h("a", { href: href("trace", { correlation: event.correlation_id }) }, "trace"))),
      event.payload === null ? h("p", { class: "muted" }, event.left_out) : tree(event.payload));
  };

  const changesOf = () => {
    const found = states.get(version);
    if (!hasState) return null;
    return h("section", { class: "panel", key: "changes" }, h("h2", {}, "What it changed"),
      stateFailure && !found ? h("p", { class: "wrong" }, stateFailure.message)
        : !found ? h("p", { class: "muted" }, "Loading …")
          : found.changes.length ? h("div", { class: "scroll" }, h("table", { class: "changes" },
            h("thead", {}, h("tr", {}, ["Where", "Before", "After"].map((each) => h("th", { scope: "col" }, each)))),
            h("tbody", {}, found.changes.map((each) => h("tr", { class: each.kind },
              h("td", { class: "id" }, path(each.path)), h("td", { class: "before" }, each.kind === "added" ? h("span", { class: "muted" }, "–") : brief(each.before)),
              h("td", { class: "after" }, each.kind === "removed" ? h("span", { class: "muted" }, "removed") : brief(each.after)))))),
            found.changed > found.changes.length && h("p", { class: "muted" }, `${count(found.changed - found.changes.length, "more change")}`))
            : h("p", { class: "muted" }, "Nothing in the state of the aggregate."));
  };

  const stateOf = () => {
    const found = states.get(version);
    return h("section", { class: "panel", key: "state" }, h("h2", {}, "State after it"),
      !hasState ? h("p", { class: "muted" }, "The class of this aggregate is not known here. Open the page of the program itself, or name its configuration file: ", h("code", {}, "uno-actors dashboard FILE"))
        : !found ? h("p", { class: "muted" }, stateFailure ? "It cannot be shown." : "Loading …")
          : found.state === null ? h("p", { class: "muted" }, found.left_out) : tree(found.state));
  };

  begin();
  return () => clearTimeout(timer);
}

function path(steps) {
  return steps.map((each, index) => (typeof each === "number" ? `[${each}]` : `${index ? "." : ""}${each}`)).join("");
}
