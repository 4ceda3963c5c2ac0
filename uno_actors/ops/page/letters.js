// Dead letters: events that handlers could not handle, in groups of similar errors.

import { h, morph, ask } from "./dom.js";
import { attempt, follow, get, post } from "./api.js";
import { ago, count, empty, href, number, streamLink, tree, when } from "./shown.js";

export function show(main, given) {
  let latest, failure;
  const chosen = new Set(); // "handler position"
  const opened = new Map(); // the same: the whole letter, once it has come
  const key = (letter) => `${letter.position} ${letter.handler}`;
  const redraw = () => latest && morph(main, draw());
  const stop = follow("dead-letters", { handler: given.handler, reason: given.reason }, (answer) => {
    latest = answer;
    failure = undefined;
    const there = new Set(answer.letters.map(key));
    for (const each of [...chosen]) if (!there.has(each)) chosen.delete(each);
    redraw();
  }, (error) => { failure = error; latest ??= { groups: [], letters: [], total: 0 }; redraw(); });

  const open = async (letter) => {
    if (opened.has(key(letter))) opened.delete(key(letter));
    else {
      opened.set(key(letter), null);
      redraw();
      const whole = await attempt(() => get("dead-letter", { handler: letter.handler, position: letter.position }));
      if (whole) opened.set(key(letter), whole);
      else opened.delete(key(letter));
    }
    redraw();
  };

  const each = async (what, done) => {
    const by = new Map();
    for (const letter of latest.letters.filter((one) => chosen.has(key(one))))
      by.set(letter.handler, [...(by.get(letter.handler) ?? []), letter.position]);
    for (const [handler, positions] of by)
      await attempt(() => post(`dead-letters/${what}`, { handler, positions }), ({ count: number_ }) => `${handler}: ${count(number_, "dead letter")} ${done}`);
    chosen.clear();
    redraw();
  };

  const drop = async () => {
    const sure = await ask("Drop dead letters", (done) => [
      h("p", {}, `The handler never handles the ${chosen.size === 1 ? "event" : `${number(chosen.size)} events`}. The events stay in the log.`),
      h("p", { class: "buttons" }, h("button", { type: "button", on: { click: () => done(false) } }, "Cancel"),
        h("button", { type: "button", class: "danger", on: { click: () => done(true) } }, `Drop ${count(chosen.size, "letter")}`))]);
    if (sure) await each("drop", "dropped");
  };

  const draw = () => {
    const { groups, letters, total } = latest;
    const all = letters.length > 0 && letters.every((letter) => chosen.has(key(letter)));
    const filtered = given.handler !== undefined;
    return [
      h("div", { class: "head" }, h("h1", {}, "Dead letters"), h("span", { class: "muted" }, total ? count(total, "event") : "")),
      failure && h("p", { class: "wrong" }, failure.message),
      !total && !failure && empty("No dead letters", h("p", {}, "Every event that handlers have taken was handled. An event that fails as often as a handler may try it comes here, with its error.")),
      total > 0 && h("div", { class: "two" },
        h("nav", { class: "groups panel", "aria-label": "Groups of dead letters" }, h("h2", {}, "By handler and reason"),
          h("ul", {},
            h("li", {}, h("a", { href: "#/letters", "aria-current": filtered ? null : "true" }, h("span", {}, "All"), h("b", { class: "num" }, number(total)))),
            groups.map((group) => h("li", { key: `${group.handler} ${group.reason}` },
              h("a", { href: href("letters", { handler: group.handler, reason: group.reason }), "aria-current": given.handler === group.handler && [undefined, group.reason].includes(given.reason) ? "true" : null },
                h("span", {}, h("span", { class: "id" }, group.handler), h("small", {}, group.reason)), h("b", { class: "num" }, number(group.positions.length))))))),
        h("section", { class: "panel" },
          h("div", { class: "bar" },
            h("label", { class: "check" }, h("input", { type: "checkbox", checked: all, "aria-label": "Select all that are listed", on: { change: () => { for (const letter of letters) all ? chosen.delete(key(letter)) : chosen.add(key(letter)); redraw(); } } }),
              chosen.size ? ` ${number(chosen.size)} selected` : " Select all"),
            h("span", { class: "buttons" },
              h("button", { type: "button", class: "main", id: "retry", disabled: !chosen.size, "data-hotkey": "r", on: { click: () => each("retry", "to be retried") } }, "Retry"),
              h("button", { type: "button", id: "drop", disabled: !chosen.size, on: { click: drop } }, "Drop …"))),
          letters.length ? h("ul", { class: "letters" }, letters.map((letter) => line(letter)))
            : h("p", { class: "muted" }, "None is left in this group."))),
    ];
  };

  const line = (letter) => {
    const id = key(letter);
    const isOpen = opened.has(id);
    return h("li", { key: id, "data-row": "", class: "letter" },
      h("div", { class: "row" },
        h("input", { type: "checkbox", checked: chosen.has(id), "data-rowkey": "x", "aria-label": `Select position ${letter.position} of ${letter.handler}`, on: { change: () => { chosen.has(id) ? chosen.delete(id) : chosen.add(id); redraw(); } } }),
        h("button", { type: "button", class: "opens", "aria-expanded": String(isOpen), on: { click: () => open(letter) } },
          h("span", { class: "first" }, h("b", { class: "id" }, letter.handler), h("span", {}, letter.event_type), h("span", { class: "muted" }, `position ${number(letter.position)}`),
            letter.is_retried && h("span", { class: "state warn" }, "to be retried")),
          h("span", { class: "error" }, letter.error),
          h("span", { class: "muted small" }, count(letter.attempts, "attempt"), ", last ", ago(letter.last_failed)))),
      isOpen && detail(opened.get(id)));
  };

  return stop;
}

function detail(whole) {
  if (!whole) return h("p", { class: "muted detail" }, "Loading …");
  const { event } = whole;
  return h("div", { class: "detail" },
    h("p", { class: "facts" }, h("span", {}, "first failed ", when(whole.letter.first_failed)), h("span", {}, "last failed ", when(whole.letter.last_failed)),
      h("span", {}, streamLink(event.aggregate_type, event.aggregate_id, event.aggregate_version)),
      event.correlation_id && h("span", {}, h("a", { href: href("trace", { correlation: event.correlation_id }) }, "what caused it"))),
    h("h3", {}, "Traceback"), h("pre", { tabindex: "0", "aria-label": "Traceback" }, whole.traceback.trimEnd()),
    h("h3", {}, "Event"), event.payload === null ? h("p", { class: "muted" }, event.left_out) : tree(event.payload));
}
