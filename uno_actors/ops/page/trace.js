// Trace: everything that one message caused, as a drawing: who caused what, when, and where it waits now.

import { h, morph } from "./dom.js";
import { connection, get } from "./api.js";
import { count, empty, href, number, seconds, state, streamLink, when } from "./shown.js";

const STEP = 22; // pixels from one level to the next

export function show(main, given) {
  let found, failure, timer, isOver = false;
  connection.state = "still";
  connection.changed();
  const redraw = () => morph(main, draw());
  const ask = async () => {
    try {
      found = await get("trace", { correlation: given.correlation });
      failure = undefined;
    } catch (error) { failure = error; }
    redraw();
    const waits = found?.events.some(({ deliveries }) => deliveries.some((each) => each.state !== "dead letter"));
    if (waits && !isOver) timer = setTimeout(ask, 2000);
  };
  const go = (event) => {
    event.preventDefault();
    location.hash = href("trace", { correlation: new FormData(event.target).get("correlation").trim() });
  };
  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, "Trace"), found && h("span", { class: "muted" }, `${count(found.total, "event")} in ${seconds(found.seconds)}`)),
    h("form", { class: "panel search", role: "search", on: { submit: go } },
      h("label", { class: "wide" }, h("span", {}, "Correlation id"), h("input", { type: "search", name: "correlation", value: given.correlation ?? "", required: true, autocomplete: "off", spellcheck: "false" })),
      h("span", { class: "buttons" }, h("button", { type: "submit", class: "main" }, "Show"))),
    failure && h("p", { class: "wrong" }, failure.message),
    !given.correlation && empty("What did one message cause?",
      h("p", {}, "All events that follow from one first message share a correlation id. Logs and errors name it, and each event in ", h("a", { href: "#/streams" }, "Streams"), " links to its trace.")),
    given.correlation && !found && !failure && h("p", { class: "muted" }, "Searching the log …"),
    found && h("section", { class: "panel" }, drawing(found),
      found.total > found.events.length && h("p", { class: "muted" }, `${count(found.total - found.events.length, "more event")}`),
      !found.knows_handlers && h("p", { class: "muted" }, "Which handlers an event waits for is known to the program alone; dead letters are shown.")),
  ];
  if (given.correlation) ask();
  redraw();
  return () => { isOver = true; clearTimeout(timer); };
}

// The depth of each event, and which lines pass its row: they lead to later children of those above it.
function layout(events) {
  const depth = new Map();
  const lastChild = new Map();
  events.forEach((event, row) => {
    depth.set(event.position, event.parent === null ? 0 : (depth.get(event.parent) ?? -1) + 1);
    if (event.parent !== null) lastChild.set(event.parent, row);
  });
  const above = new Map(events.map((event) => [event.position, event]));
  return events.map((event, row) => {
    const passing = [];
    for (let each = event; each && each.parent !== null; each = above.get(each.parent)) {
      const parent = above.get(each.parent);
      if (parent && parent !== above.get(event.parent) && (lastChild.get(parent.position) ?? -1) > row) passing.push(depth.get(parent.position));
    }
    return { event, depth: depth.get(event.position), passing, isLast: lastChild.get(event.parent) === row, hasChildren: lastChild.has(event.position) };
  });
}

function drawing({ events, seconds: whole }) {
  const rows = layout(events);
  return h("ol", { class: "trace" }, rows.map(({ event, depth, passing, isLast, hasChildren }) => {
    const level = Math.min(depth, 12);
    const x = (each) => Math.min(each, 12) * STEP + 10;
    return h("li", { key: event.position, "data-row": "" },
      h("div", { class: "branches", style: { width: `${x(level) + 12}px` } }, h("svg", { "aria-hidden": "true" },
        passing.map((each) => h("line", { x1: x(each), x2: x(each), y1: 0, y2: "100%" })),
        depth > 0 && [
          h("line", { x1: x(level - 1), x2: x(level - 1), y1: 0, y2: isLast ? 12 : "100%" }),
          h("path", { d: `M${x(level - 1)} 11 Q${x(level - 1)} 20 ${x(level) - 10} 20 H${x(level)}` }),
        ],
        hasChildren && h("line", { x1: x(level), x2: x(level), y1: 20, y2: "100%" }),
        h("circle", { class: event.deliveries.length ? (event.deliveries.some((each) => each.state === "dead letter") ? "bad" : "warn") : "c1", cx: x(level), cy: 20, r: 5 }))),
      h("div", { class: "what" },
        h("p", {}, h("b", {}, event.event_type), " ", event.aggregate_id === null ? h("span", { class: "muted" }, "in the log alone") : streamLink(event.aggregate_type, event.aggregate_id, event.aggregate_version),
          event.aggregate_version && h("span", { class: "muted" }, ` @${event.aggregate_version}`)),
        h("p", { class: "muted small" }, event.parent === null ? when(event.timestamp, { millis: true }) : `after ${seconds(event.after)}`, event.by_command && " by a command", `, position ${number(event.position)}`, event.topic && [", topic ", h("code", {}, event.topic)]),
        event.deliveries.map((each) => h("p", { class: "delivery" }, state(each.state), " ", h("a", { class: "id", href: each.state === "dead letter" ? href("letters", { handler: each.handler }) : "#/handlers" }, each.handler), " ", words(each), " ", h("a", { href: href("why", { id: each.handler }) }, "Why?")))),
      h("div", { class: "time", title: `after ${seconds(event.after)}`, "aria-hidden": "true" },
        h("span", { style: { left: `${whole > 0 ? (event.after / whole) * 100 : 0}%` } })));
  }));
}

function words({ state: kind, behind, handler_state: doing, attempts, error }) {
  if (kind === "dead letter") return `gave it up after ${count(attempts, "attempt")}: ${error}`;
  const where = doing === "live" || doing === "catching up" ? `is ${count(behind, "position")} before it` : `is ${doing}`;
  return kind === "failing" ? `has failed at it ${attempts === 1 ? "once" : `${attempts} times`}, and tries it again` : where;
}
