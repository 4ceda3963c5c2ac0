// Handlers: where they are in the log, and requests to them.

import { h, morph, ask } from "./dom.js";
import { attempt, follow, post } from "./api.js";
import { spark } from "./plot.js";
import { empty, figure, href, number, state } from "./shown.js";

export function show(main) {
  let partitions = false, latest, failure, stop = () => {};
  const redraw = () => latest && morph(main, draw());
  const open = () => {
    stop();
    stop = follow("handlers", { partitions }, (answer) => { latest = answer; failure = undefined; redraw(); },
      (error) => { failure = error; latest ??= { handlers: [], times: [], lags: {}, ends: [] }; redraw(); });
  };
  const draw = () => {
    const { handlers, lags, ends } = latest;
    return [
      h("div", { class: "head" }, h("h1", {}, "Handlers"),
        h("label", { class: "check" }, h("input", { type: "checkbox", checked: partitions, on: { change: (event) => { partitions = event.target.checked; open(); } } }), " each partition")),
      failure && h("p", { class: "wrong" }, failure.message),
      handlers.length > 0 && h("p", { class: "muted" }, ends.length === 1 ? `The log ends at position ${number(ends[0])}.` : `The store has ${ends.length} logs.`),
      handlers.length ? h("div", { class: "cards" }, handlers.map((each) => card(each, lags[each.name] ?? [])))
        : !failure && empty("No handlers yet", h("p", {}, "A handler appears here once a system has run it on this store.")),
    ];
  };
  open();
  return () => stop();
}

function card(info, lags) {
  const name = info.name;
  const requests = [
    info.paused && info.state !== "paused" && "is to pause",
    info.reset_to !== null && `is to continue after position ${number(info.reset_to)}`,
    info.retries > 0 && `is to retry ${number(info.retries)} dead letters`,
  ].filter(Boolean);
  return h("article", { class: "panel handler", key: name, "data-row": "" },
    h("header", {}, h("h2", { class: "id" }, name), state(info.state),
      info.node && h("span", { class: "fact" }, `on ${info.node}`),
      info.view && h("span", { class: "fact" }, `view ${info.view}`),
      info.partitions > 0 && h("span", { class: "fact" }, `${info.partitions} partitions`)),
    h("dl", { class: "numbers" },
      h("div", { class: info.lag > 0 && info.state !== "live" ? "warn" : "" }, h("dt", {}, "Lag"), h("dd", {}, number(info.lag), lags.length > 1 && spark(lags, `lag of the last minutes, now ${number(info.lag)}`))),
      h("div", {}, h("dt", {}, "Position"), h("dd", {}, number(info.position))),
      h("div", {}, h("dt", {}, "Rate"), h("dd", {}, info.rate === null ? "–" : `${figure(info.rate)}/s`)),
      h("div", { class: info.failures ? "warn" : "" }, h("dt", {}, "Failures"), h("dd", {}, number(info.failures))),
      h("div", { class: info.dead_letters ? "bad" : "" }, h("dt", {}, "Dead letters"),
        h("dd", {}, info.dead_letters ? h("a", { href: href("letters", { handler: name }) }, number(info.dead_letters)) : "0"))),
    requests.length > 0 && h("p", { class: "warn" }, `It ${requests.join(", and ")}, as soon as it can.`),
    h("p", { class: "buttons" },
      info.paused
        ? h("button", { type: "button", on: { click: () => attempt(() => post("handlers/resume", { name }), `${name} resumes`) } }, "Resume", h("span", { class: "off" }, ` ${name}`))
        : h("button", { type: "button", on: { click: () => attempt(() => post("handlers/pause", { name }), `${name} is paused`) } }, "Pause", h("span", { class: "off" }, ` ${name}`)),
      h("button", { type: "button", on: { click: () => reset(info) } }, "Reset …", h("span", { class: "off" }, ` ${name}`))));
}

async function reset(info) {
  const given = await ask(`Reset ${info.name}`, (done) => form(info, done));
  if (given) await attempt(() => post("handlers/reset", given), ({ position }) => `${info.name} continues after position ${number(position)}`);
}

function form({ name, view }, done) {
  const send = (event) => {
    event.preventDefault();
    const found = new FormData(event.target);
    const to = found.get("to");
    done({ name, to: to === "other" ? found.get("place") : to, confirm: found.get("confirm") });
  };
  const radio = (value, text, first) => h("label", { class: "line" }, h("input", { type: "radio", name: "to", value, checked: first }), ` ${text}`);
  return h("form", { on: { submit: send } },
    h("p", {}, view ? "A projection is built again from the first event, in a new view. Readers keep the old one until the new one has caught up."
      : "Back: the handler gets events once more that it has handled. Forward: it never gets those in between."),
    h("fieldset", {}, h("legend", {}, "Continue"),
      radio("earliest", "from the first event", true),
      !view && radio("latest", "with new events alone"),
      !view && radio("other", "after a position, or from a time:"),
      !view && h("input", { type: "text", name: "place", "aria-label": "Position or time", placeholder: "1200 or 2026-05-01T12:00" })),
    h("label", { class: "line" }, "Type ", h("b", {}, name), " to confirm", h("input", { type: "text", name: "confirm", required: true, autocomplete: "off", "aria-label": "Name of the handler, to confirm" })),
    h("p", { class: "buttons" },
      h("button", { type: "button", on: { click: () => done() } }, "Cancel"),
      h("button", { type: "submit", class: "danger" }, "Reset")));
}
