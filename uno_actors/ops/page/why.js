// Why: why something is not done, or what became of it, with the command that mends it.

import { h, morph } from "./dom.js";
import { connection, get } from "./api.js";
import { empty, href, state } from "./shown.js";

export function show(main, given) {
  let found, failure;
  connection.state = "still";
  connection.changed();
  const redraw = () => morph(main, draw());
  const ask = async () => {
    try {
      found = await get("why", { id: given.id });
      failure = undefined;
    } catch (error) { failure = error; }
    redraw();
  };
  const go = (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("id").trim();
    if (id === given.id) { found = undefined; redraw(); ask(); } else location.hash = href("why", { id });
  };
  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, "Why"), found && found.kind !== "unknown" && state(found.state)),
    h("form", { class: "panel search", role: "search", on: { submit: go } },
      h("label", { class: "wide" }, h("span", {}, "Id or name"), h("input", { type: "search", name: "id", value: given.id ?? "", required: true, autocomplete: "off", spellcheck: "false" })),
      h("span", { class: "buttons" }, h("button", { type: "submit", class: "main" }, given.id && found ? "Ask again" : "Ask"))),
    failure && h("p", { class: "wrong" }, failure.message),
    !given.id && empty("Why is it not done?",
      h("p", {}, "Give the id of a command, an event, a correlation or an aggregate (Type/id), the key of a schedule, or the name of a handler, a view, an actor or a supervisor.")),
    given.id && !found && !failure && h("p", { class: "muted" }, "Asking the store and the processes …"),
    found && h("section", { class: "panel" }, list(found.findings)),
    found?.unasked.length > 0 && h("section", { class: "panel" }, h("h2", {}, "Not asked"), h("ul", {}, found.unasked.map((each) => h("li", {}, each)))),
  ];
  if (given.id) ask();
  redraw();
}

const list = (findings) => h("ul", { class: "findings" }, findings.map((each) => h("li", { class: each.state },
  h("p", {}, each.state !== "note" && [state(each.state), " "], each.says),
  each.remedies.map(({ purpose, command }) => h("p", { class: "remedy" }, `${purpose}: `, h("code", {}, command))),
  each.below.length > 0 && list(each.below))));
