// Tree: supervisors and their children, budgets, and back-offs that count down.

import { h, morph } from "./dom.js";
import { follow } from "./api.js";
import { count, empty, number, seconds, state } from "./shown.js";

export function show(main) {
  let latest, at = 0, failure;
  const redraw = () => latest && morph(main, draw(latest, (performance.now() - at) / 1000, failure));
  const stop = follow("tree", {}, (answer) => { latest = answer; at = performance.now(); failure = undefined; redraw(); },
    (error) => { failure = error; latest ??= { processes: [] }; redraw(); });
  const counting = setInterval(redraw, 200);
  return () => { stop(); clearInterval(counting); };
}

function draw({ processes }, past, failure) {
  return [
    h("div", { class: "head" }, h("h1", {}, "Tree")),
    failure && h("p", { class: "wrong" }, failure.message),
    processes.map((each) => h("section", { class: "panel", key: each.process },
      h("h2", {}, each.system || "Process", h("span", { class: "muted" }, ` process ${each.process}, up ${seconds(each.uptime + past)}`)),
      each.unanswered ? h("p", { class: "wrong" }, each.unanswered)
        : each.children.length ? h("ul", { class: "tree" }, each.children.map((child) => node(child, past)))
          : h("p", { class: "muted" }, "No supervisor has children."))),
    !processes.length && !failure && empty("Nothing is running", h("p", {}, "No process of this machine and user works on this store now.")),
  ];
}

function node(child, past) {
  const left = child.restart_in === null ? null : Math.max(0, child.restart_in - past);
  return h("li", { key: `${child.kind} ${child.name}` },
    h("div", { class: "node", "data-row": "" },
      h("span", { class: "kind" }, child.kind),
      child.kind === "handler" ? h("a", { class: "id", href: "#/handlers" }, child.name) : h("span", { class: "id" }, child.name),
      state(child.why ? "gave up" : child.state),
      left !== null && h("span", { class: "warn countdown" }, left > 0 ? `starts again in ${left.toFixed(1)} s` : "starting again"),
      child.restarts > 0 && h("span", { class: "fact" }, count(child.restarts, "restart")),
      child.waiting > 0 && h("span", { class: "fact" }, `${number(child.waiting)} waiting`),
      child.restart !== "permanent" && h("span", { class: "fact" }, child.restart),
      budget(child)),
    child.why && h("p", { class: "wrong" }, `Gave up: ${child.why}`),
    child.children.length > 0 && h("ul", {}, child.children.map((each) => node(each, past))));
}

function budget({ max_restarts: most, restarts_left: left, within, kind }) {
  if (kind !== "supervisor" || within === null) return null;
  if (most === null || left === null) return h("span", { class: "fact" }, "any number of restarts");
  const share = most ? left / most : 0;
  return h("span", { class: "budget", title: "When no restart is left, the next failure ends the supervisor" },
    h("span", { class: `meter ${share < 0.34 ? "bad" : share < 0.67 ? "warn" : "good"}`, role: "img", "aria-label": `${left} of ${most} restarts left` },
      h("span", { style: { width: `${share * 100}%` } })),
    `${left} of ${count(most, "restart")} left in ${seconds(within)}`);
}
