"""What is measured: the one table of all metrics, from which exporters, documentation and tests are made.

Names follow OpenTelemetry's conventions; Prometheus has them with underscores, the unit, and ``_total`` for counters.
A label has few values: types, names of handlers and supervisors, states. It is never an id.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper limits of the buckets of durations; one fsync takes about a millisecond on a good disk."""
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Upper limits of the buckets of sizes of groups."""

_SUFFIXES = {"s": "_seconds", "By": "_bytes"}
"""What Prometheus appends for a unit; units in braces are annotations and have none."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: As OpenTelemetry has it.
        kind: A counter only grows while the system runs.
        unit: By UCUM, as OpenTelemetry writes it: ``s``, ``By``, or what is counted in braces.
        help: What it says, for people.
        labels: Names of its labels.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus; for a histogram without ``_bucket`` and the like."""
        name = self.name.replace(".", "_") + _SUFFIXES.get(self.unit, "")
        return f"{name}_total" if self.kind == "counter" else name

    @property
    def buckets(self) -> tuple[float, ...]:
        """Upper limits of the buckets of a histogram, without the last one, which has no limit."""
        return SECONDS if self.unit == "s" else COUNTS


def _counter(name: str, unit: str, says: str, *labels: str) -> Definition:
    return Definition(name, "counter", unit, says, labels)


def _gauge(name: str, unit: str, says: str, *labels: str) -> Definition:
    return Definition(name, "gauge", unit, says, labels)


def _histogram(name: str, unit: str, says: str, *labels: str) -> Definition:
    return Definition(name, "histogram", unit, says, labels)


DEFINITIONS = (
    # --- the system ---
    _gauge("uno.system.running", "", "1 while the system runs, otherwise 0"),
    # --- commands ---
    _counter(
        "uno.commands",
        "{command}",
        "Commands answered by aggregates of this node. The outcome is `handled`, `rejected` by a domain rule,"
        " `timeout`, `conflict` with another writer, or `failed`",
        "aggregate",
        "command",
        "outcome",
    ),
    _histogram(
        "uno.command.queue.time",
        "s",
        "Time that commands wait for their aggregate, its loading included",
        "aggregate",
    ),
    _histogram(
        "uno.command.decide.time",
        "s",
        "Time that the `@handles` method takes; it holds the event loop",
        "aggregate",
        "command",
    ),
    _histogram(
        "uno.command.time",
        "s",
        "Time from the arrival of a command at its aggregate to its answer, the commit included",
        "aggregate",
    ),
    _gauge("uno.commands.waiting", "{command}", "Commands that are not answered yet, here or by other nodes"),
    _gauge("uno.commands.oldest", "s", "Age of the oldest waiting command with the system's own timeout"),
    _counter(
        "uno.commands.rerun",
        "{command}",
        "Commands run again because another writer was faster or a commit failed",
    ),
    _counter("uno.commands.repeated", "{command}", "Repeated commands answered with their first outcome"),
    # --- commits and events ---
    _histogram("uno.append.time", "s", "Time in which the store commits a group of appends"),
    _histogram("uno.append.group", "{append}", "Appends that are committed together"),
    _counter(
        "uno.events",
        "{event}",
        "Events recorded by aggregates of this node",
        "aggregate",
        "event",
    ),
    _counter("uno.events.replayed", "{event}", "Events applied while aggregates are loaded"),
    # --- aggregates ---
    _gauge("uno.aggregates.active", "{aggregate}", "Aggregates in memory"),
    _counter("uno.aggregates.activated", "{aggregate}", "Aggregates loaded from the store"),
    _counter("uno.aggregates.passivated", "{aggregate}", "Idle aggregates removed from memory"),
    _histogram("uno.aggregate.load.time", "s", "Time in which an aggregate is loaded", "aggregate"),
    _counter("uno.snapshots", "{snapshot}", "Saved snapshots of aggregates"),
    # --- actors ---
    _gauge("uno.actors", "{actor}", "Living spawned actors, supervisors included", "actor"),
    _gauge("uno.mailbox.waiting", "{message}", "Messages that wait in the mailboxes of actors", "actor"),
    _gauge("uno.mailbox.oldest", "s", "Age of the oldest message that waits", "actor"),
    _counter("uno.dead.messages", "{message}", "Messages that were told but not handled"),
    # --- handlers ---
    _gauge(
        "uno.handler.position",
        "{position}",
        "The handler has finished every event up to this position of the log, of its last partition",
        "handler",
    ),
    _gauge(
        "uno.handler.lag",
        "{event}",
        "Events between the handler and the end of the log, of its last partition",
        "handler",
    ),
    _gauge(
        "uno.handler.lag.time",
        "s",
        "Age of the next event that the handler must handle; 0 if it has handled all",
        "handler",
    ),
    _gauge("uno.handler.running", "", "1 if this process runs the handler and it is at work", "handler"),
    _gauge("uno.handler.paused", "", "1 if this process runs the handler and it is paused", "handler"),
    _gauge("uno.handler.waiting", "{event}", "Events in the handler's queue", "handler"),
    _counter("uno.handler.events", "{event}", "Events handled", "handler"),
    _counter(
        "uno.handler.attempts",
        "{attempt}",
        "Attempts at events. The outcome is `handled` or `failed`",
        "handler",
        "outcome",
    ),
    _histogram("uno.handler.time", "s", "Time of a call of the handler, for one event or a batch", "handler"),
    _counter("uno.handler.restarts", "{restart}", "Restarts of the handler", "handler"),
    _counter(
        "uno.handler.set_aside", "{event}", "Events that this process moved to the dead letters", "handler"
    ),
    _gauge("uno.dead.letters", "{event}", "Dead letters in the store now", "handler"),
    # --- scheduled commands ---
    _gauge("uno.schedules.waiting", "{command}", "Commands in the list of what is to be sent later"),
    _gauge("uno.schedules.late.time", "s", "By how much the first of them is late; 0 if none is"),
    _counter(
        "uno.schedules.fired", "{command}", "Commands that were due and recorded as such by this process"
    ),
    _counter("uno.schedules.sent", "{command}", "Commands that were due and that this process has sent"),
    _counter(
        "uno.schedules.rejected",
        "{command}",
        "Commands that were due and that their aggregates have rejected",
    ),
    _counter("uno.schedules.failed", "{command}", "Attempts of this process to send one that failed"),
    # --- supervision ---
    _gauge(
        "uno.supervisor.running", "", "1 if the supervisor runs, 0 if it gave up or has ended", "supervisor"
    ),
    _counter("uno.supervisor.restarts", "{restart}", "Decisions to restart a failed child", "supervisor"),
    _gauge(
        "uno.supervisor.budget.left",
        "{restart}",
        "Restarts that the budget still allows now; absent without a limit",
        "supervisor",
    ),
    # --- the loop and the threads ---
    _histogram("uno.loop.delay", "s", "How late the event loop runs a callback, measured twice per second"),
    _counter(
        "uno.loop.holds", "{report}", "Reports of code that held a loop or a worker thread of the process"
    ),
    _gauge(
        "uno.worker.threads",
        "{thread}",
        "Worker threads. The state is `idle`, `busy` or `blocked`",
        "state",
    ),
    _gauge("uno.worker.waiting", "{function}", "Functions that wait for a worker thread"),
    # --- the store ---
    _gauge("uno.store.up", "", "1 if the store has answered the question for these metrics, otherwise 0"),
    _gauge("uno.store.size", "By", "Bytes of the store on disk"),
    _gauge("uno.log.position", "{position}", "The last position of the log", "log"),
    _counter("uno.store.commits", "{commit}", "Transactions that this process has committed"),
    _counter("uno.store.commit.time", "s", "Time that these commits took, most of which is the fsync"),
    # --- the cluster ---
    _gauge("uno.cluster.members", "{node}", "Nodes that are up, as this node sees them"),
    _counter(
        "uno.cluster.commands",
        "{command}",
        "Commands by way: `local`, `sent` to other nodes, `sent again`, or `served` for them",
        "way",
    ),
    _gauge("uno.cluster.waiting", "{command}", "Commands sent to other nodes that are not answered yet"),
    _gauge("uno.cluster.homeless", "{command}", "Those among them that wait for a node that serves them"),
    _gauge("uno.cluster.lent", "{aggregate}", "Aggregates that other nodes have on loan from this one"),
    _gauge("uno.cluster.borrowed", "{aggregate}", "Aggregates of other nodes that this one has on loan"),
    _counter(
        "uno.cluster.recalled", "{aggregate}", "Loans ended by this node, as more than one node has asked"
    ),
    _histogram("uno.hop.time", "s", "Time until another node has answered a command"),
)
"""All metrics, in the order in which they are exported."""

BY_NAME = {definition.name: definition for definition in DEFINITIONS}
"""All metrics by name."""

SYSTEM = "system"
"""The label that every series has: the name of its system."""

OTHER = "other"
"""Stands for the values of a label beyond the limit."""

MOST_SERIES = 200
"""Maximum number of series of one metric that is counted as it happens; further ones share one, see `OTHER`."""


def as_table() -> str:
    """All metrics as a table of the documentation."""
    lines = ["| metric | Prometheus | kind | unit | labels | says |", "|---|---|---|---|---|---|"]
    for each in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        unit = f"`{each.unit}`" if each.unit else ""
        lines.append(
            f"| `{each.name}` | `{each.prometheus_name}` | {each.kind} | {unit} | {labels} | {each.help} |"
        )
    return "\n".join(lines)
