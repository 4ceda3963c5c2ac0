// Cluster: nodes, what each owns and runs, and how far away it is.

import { h, morph } from "./dom.js";
import { follow } from "./api.js";
import { count, empty, number, seconds, state } from "./shown.js";

export function show(main) {
  let latest, failure;
  const redraw = () => morph(main, draw());
  const stop = follow("cluster", {}, (answer) => { latest = answer; failure = undefined; redraw(); }, (error) => { failure = error; redraw(); });

  const draw = () => [
    h("div", { class: "head" }, h("h1", {}, "Cluster"), latest?.nodes.length > 0 && h("span", { class: "muted" }, count(latest.nodes.length, "node"))),
    failure && h("p", { class: "wrong" }, failure.message),
    !latest && !failure && h("p", { class: "muted" }, "Asking the nodes …"),
    latest && !latest.nodes.length && empty("No nodes", h("p", {}, latest.why_none ?? "No process works on this store now.")),
    latest?.nodes.length > 0 && [
      h("section", { class: "panel" }, h("h2", {}, "Nodes"), h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Node", "State", "Address", "Roles"].map((each) => h("th", { scope: "col" }, each)),
          [["Up", "Time since it started"], ["Hop", "Time until it answered"], ["Own", "Commands of this node for aggregates that it owns or has borrowed"], ["Sent", "Commands sent to other nodes"], ["Served", "Commands of other nodes that it handled"], ["Again", "Commands sent once more, because the other node ended or its answer was lost"], ["Lent", "Aggregates that another node has on loan, because it alone asks for them"], ["Borrowed", "Aggregates of other nodes that it has on loan"]]
            .map(([each, title]) => h("th", { scope: "col", class: "num", title }, each)))),
        h("tbody", {}, latest.nodes.map((node) => h("tr", { key: node.name, "data-row": "" },
          h("td", { class: "id" }, node.name), h("td", {}, state(node.state), node.unreachable && h("p", { class: "wrong small" }, node.unreachable)),
          h("td", { class: "id" }, node.address ?? h("span", { class: "muted" }, "takes no commands of others")), h("td", {}, node.roles.join(", ")),
          h("td", { class: "num" }, seconds(node.uptime)), h("td", { class: "num" }, seconds(node.hop)),
          ["local", "sent", "served", "sent_again", "lent", "borrowed"].map((name) => h("td", { class: "num" }, node.counters ? number(node.counters[name]) : "–")))))))),
      Object.keys(latest.skew).length > 0 && h("section", { class: "panel" }, h("h2", {}, "Who owns which part of the aggregates"),
        Object.entries(latest.skew).map(([type, skew]) => shards(type, skew, latest.nodes))),
      h("section", { class: "panel" }, h("h2", {}, "Handlers"), h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Node", "Runs"].map((each) => h("th", { scope: "col" }, each)))),
        h("tbody", {}, latest.nodes.map((node) => h("tr", { key: node.name }, h("td", { class: "id" }, node.name),
          h("td", {}, node.handlers.length ? node.handlers.join(", ") : h("span", { class: "muted" }, latest.nodes.length === 1 ? "all that run, as the only node" : "none")))))))),
      latest.nodes.some((node) => Object.keys(node.peers).length) && h("section", { class: "panel" }, h("h2", {}, "Between the nodes"),
        h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, ["From", "To", "Sent", "Again", "Mean time"].map((each) => h("th", { scope: "col" }, each)))),
          h("tbody", {}, latest.nodes.flatMap((node) => Object.entries(node.peers).map(([to, peer]) => h("tr", { key: `${node.name} ${to}` },
            h("td", { class: "id" }, node.name), h("td", { class: "id" }, to), h("td", { class: "num" }, number(peer.sent)), h("td", { class: "num" }, number(peer.sent_again)), h("td", { class: "num" }, seconds(peer.seconds))))))))),
    ],
  ];
  redraw();
  return stop;
}

const COLOURS = ["c1", "c2", "c3", "c4"];

function shards(type, skew, nodes) {
  const owners = nodes.filter((node) => node.shards[type] > 0);
  const whole = owners.reduce((sum, node) => sum + node.shards[type], 0);
  return h("div", { class: "shards", key: type },
    h("p", {}, h("b", { class: "id" }, type), h("span", { class: "muted" }, ` the fullest node has ${Math.round(skew * 100)} % more than its share`)),
    h("div", { class: "stack", role: "img", "aria-label": owners.map((node) => `${node.name} ${node.shards[type]}`).join(", ") },
      owners.map((node, index) => h("span", { class: COLOURS[index % 4], style: { width: `${(node.shards[type] / whole) * 100}%` }, title: `${node.name}: ${number(node.shards[type])} of ${number(whole)}` }))),
    h("ul", { class: "legend" }, owners.map((node, index) => h("li", { class: COLOURS[index % 4] }, h("span", { class: "name" }, node.name), " ", h("b", {}, number(node.shards[type]))))));
}
