// Now: figures of the last minutes as plots, and who is slow.

import { h, morph } from "./dom.js";
import { follow, get } from "./api.js";
import { plot } from "./plot.js";
import { count, empty, figure, number, seconds } from "./shown.js";

const SPANS = [[60, "1 min"], [300, "5 min"], [600, "10 min"]];
const KEPT = 600;
let span = 300;
let known = { times: [], figures: {} };

export function show(main) {
  let latest, failure;
  const redraw = () => latest && morph(main, draw(latest, failure, redraw));
  const take = (answer) => {
    merge(answer);
    latest = answer;
    failure = undefined;
    redraw();
  };
  known = { times: [], figures: {} };
  let isOver = false, stop = () => {};
  get("now").then((answer) => {
    if (isOver) return;
    take(answer);
    stop = follow("now", { last: 3 }, take, (error) => { failure = error; redraw(); });
  }, (error) => morph(main, h("p", { class: "wrong" }, error.message)));
  return () => { isOver = true; stop(); };
}

function merge({ times, figures }) {
  const last = known.times.length ? known.times[known.times.length - 1] : 0;
  times.forEach((time, index) => {
    if (time <= last) return;
    known.times.push(time);
    for (const [name, values] of Object.entries(figures)) (known.figures[name] ??= []).push(values[index]);
  });
  const over = known.times.length - KEPT;
  if (over > 0) {
    known.times.splice(0, over);
    for (const values of Object.values(known.figures)) values.splice(0, over);
  }
}

function draw({ busy, processes, totals }, failure, redraw) {
  const { times, figures } = known;
  const of = (name) => figures[name] ?? [];
  const last = (name) => of(name).at(-1) ?? 0;
  const told = processes.filter((each) => !each.unanswered);
  const silent = processes.filter((each) => each.unanswered);
  const mean = of("asked").map((each, index) => (each > 0 ? of("answering")[index] / each : each));
  const per = of("commits").map((each, index) => (each > 0 ? of("events")[index] / each : each));
  const tile = (name, value, more, kind) => h("div", { class: `tile panel ${kind ?? ""}` }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));
  const draws = (id, title, hint, series, format, least = 2) => plot({ id, title, hint, times, span, redraw, format, series, least });
  const series = (name, field, kind) => ({ name, values: of(field), kind });
  return [
    h("div", { class: "head" }, h("h1", {}, "Now"),
      h("div", { class: "choice", role: "group", "aria-label": "Time shown" }, SPANS.map(([each, name]) =>
        h("button", { type: "button", "aria-pressed": String(each === span), on: { click: () => { span = each; redraw(); } } }, name)))),
    failure && h("p", { class: "wrong" }, `No new figures: ${failure.message}`),
    silent.map((each) => h("p", { class: "wrong" }, `Process ${each.process} does not answer: ${each.unanswered}`)),
    told.length ? [
      h("dl", { class: "tiles" },
        tile("Commands", figure(last("commands") + last("rejected") + last("failed")), "per second"),
        tile("Errors", figure(last("failed")), "per second", last("failed") > 0 ? "bad" : ""),
        tile("Waiting", number(last("waiting")), last("waiting") > 0 ? `oldest ${seconds(last("oldest"))}` : "commands", last("oldest") > 1 ? "warn" : ""),
        tile("Handled", figure(last("handled")), "events per second"),
        tile("Event loop", seconds(last("delay")), "late", last("delay") > 0.1 ? "warn" : ""),
        tile("In memory", number(last("active")), "aggregates")),
      busy.length > 0 && slow(busy),
      h("div", { class: "plots" },
        draws("commands", "Commands per second", "Commands that were answered, by their outcome",
          [series("replied", "commands", "c1"), series("rejected", "rejected", "c2"), series("errors", "failed", "bad")]),
        draws("events", "Events per second", "Events recorded by commands, and events handled, which count once for each handler",
          [series("recorded", "events", "c1"), series("handled, by all handlers", "handled", "c3")]),
        draws("waiting", "Waiting", "Commands without an answer yet, events in the queues of handlers, messages of actors",
          [series("commands", "waiting", "c1"), series("events", "queued", "c3"), series("messages", "messages", "c4")], number),
        draws("answered", "Time to answer", "Mean time from an ask to its answer, and the age of the oldest command without one",
          [{ name: "answered in", values: mean, kind: "c1" }, series("oldest that waits", "oldest", "c2")], seconds, 0.01),
        draws("commits", "Commits per second", "Writes to the store, each of which records the events of all commands that waited for it",
          [series("commits", "commits", "c1"), { name: "events in each", values: per, kind: "c4" }]),
        draws("delay", "Delay of the event loop", "How late the event loop was: code that holds it delays everything",
          [series("late by", "delay", "c2")], seconds, 0.01)),
      !busy.length && slow(busy),
      h("section", { class: "panel" },
        h("h2", {}, "Since the start"),
        h("p", { class: "facts" }, [["commands", "command"], ["rejected", "rejection"], ["failed", "error"], ["events", "event"], ["commits", "commit"], ["loads", "load"], ["restarts", "restart"], ["dead_messages", "dropped message"]]
          .map(([name, word]) => h("span", {}, count(totals[name], word)))),
        h("p", { class: "muted" }, told.map((each) => `${each.system}, process ${each.process}, up ${seconds(each.uptime)}`).join(" · ")),
        h("p", {}, h("a", { href: "api/recording", download: "" }, "Download the flight recording"), " of the latest steps: ", h("code", {}, "uno-actors recording FILE"), " draws it.")),
    ] : empty("Nothing is running",
      h("p", {}, "No process of this machine and user works on this store now, so there is nothing to measure."),
      h("p", {}, "What is recorded can be looked at: see ", h("a", { href: "#/streams" }, "Streams"), ", ", h("a", { href: "#/handlers" }, "Handlers"), " and ", h("a", { href: "#/letters" }, "Dead letters"), ".")),
  ];
}

function slow(busy) {
  return h("section", { class: "panel", key: "slow" },
        h("h2", {}, "Slow now"),
        busy.length ? h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, ["Who", "At work on", "Since", "Line"].map((each) => h("th", { scope: "col" }, each)))),
          h("tbody", {}, busy.map((each) => h("tr", { key: each.who + each.what },
            h("td", { class: "id" }, each.who), h("td", {}, each.what), h("td", { class: "num" }, seconds(each.seconds)), h("td", { class: "mono" }, each.line ?? "not known"))))))
          : h("p", { class: "muted" }, "No actor and no handler has worked at one thing for longer than 0.25 s."));
}
