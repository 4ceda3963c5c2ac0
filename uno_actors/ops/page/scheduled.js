// Scheduled: commands that are sent later, by due time.

import { h, morph, ask } from "./dom.js";
import { attempt, follow, post } from "./api.js";
import { count, empty, seconds, streamLink, when } from "./shown.js";

export function show(main) {
  let latest, failure;
  const redraw = () => morph(main, draw());
  const stop = follow("schedules", {}, (answer) => { latest = answer; failure = undefined; redraw(); }, (error) => { failure = error; redraw(); });

  const cancel = async (each) => {
    const sure = await ask("Cancel a scheduled command", (done) => [
      h("p", {}, `${each.command} to ${each.to_type} ${each.to_id} is not sent${each.every ? " any more" : ""}.`),
      h("p", { class: "buttons" }, h("button", { type: "button", on: { click: () => done(false) } }, "Keep it"),
        h("button", { type: "button", class: "danger", on: { click: () => done(true) } }, "Cancel the command"))]);
    if (sure) await attempt(() => post("schedules/cancel", { id: each.id }), () => `${each.command}: cancelled`);
  };
  const runNow = (each) => attempt(() => post("schedules/run-now", { id: each.id }), () => `${each.command}: sent now`);

  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, "Scheduled"), latest?.schedules.length > 0 && h("span", { class: "muted" }, latest.more ? `the first ${latest.schedules.length}` : count(latest.schedules.length, "command"))),
    failure && h("p", { class: "wrong" }, failure.message),
    latest && !latest.schedules.length && empty("Nothing is scheduled", h("p", {}, "Commands that aggregates or programs have sent later come here, until they are due.")),
    latest?.schedules.length > 0 && h("section", { class: "panel" }, h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Due", "Command", "To", "Every", "Key", "Scheduled by", ""].map((each) => h("th", { scope: "col" }, each || h("span", { class: "muted" }, "Actions"))))),
      h("tbody", {}, latest.schedules.map((each) => h("tr", { key: each.id, "data-row": "" },
        h("td", {}, when(each.due), each.late > 1 && h("p", { class: "wrong small" }, `${seconds(each.late)} late`)),
        h("td", {}, h("span", { class: "id", title: each.fields }, each.command)),
        h("td", {}, streamLink(each.to_type, each.to_id)),
        h("td", {}, each.every ? `${each.every} ${each.tz}` : "–"),
        h("td", { class: "id" }, each.key),
        h("td", {}, each.owner_type ? streamLink(each.owner_type, each.owner_id) : h("span", { class: "muted" }, "a program")),
        h("td", { class: "buttons" }, h("button", { type: "button", on: { click: () => runNow(each) } }, "Send now"),
          h("button", { type: "button", on: { click: () => cancel(each) } }, "Cancel")))))))),
  ];
  redraw();
  return stop;
}
