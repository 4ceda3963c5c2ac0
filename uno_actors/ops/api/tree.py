"""The page Tree: supervisors and their children, with budgets and back-offs."""

from collections.abc import Mapping
from typing import Any

from uno_actors.ops.api.endpoint import Answered, Nothing, Observed


class Child(Answered):
    """A supervisor, an actor, a handler, or a worker process.

    Attributes:
        name: Its name.
        kind: ``supervisor``, ``actor``, ``handler`` or ``process``.
        state: Of a handler or an actor the state in its statistics; ``restarting`` while its supervisor restarts it.
        restart: ``permanent``, ``transient`` or ``temporary``.
        restarts: How often it was restarted.
        waiting: Messages or events in its queue.
        restart_in: Seconds until it is started again, during a back-off.
        restarts_left: Of a supervisor: restarts that its budget still allows; ``None`` for no limit.
        max_restarts: Of a supervisor: its budget.
        within: Of a supervisor: seconds of the budget's window.
        why: Why a supervisor gave up.
        children: The children of a supervisor, in the order of their start.
    """

    name: str
    kind: str
    state: str
    restart: str
    restarts: int
    waiting: int
    restart_in: float | None = None
    restarts_left: int | None = None
    max_restarts: int | None = None
    within: float | None = None
    why: str | None = None
    children: "list[Child]"


class ProcessTree(Answered):
    """The supervision tree of one process."""

    system: str
    process: int
    uptime: float
    unanswered: str | None
    children: list[Child]


class Trees(Answered):
    """The supervision trees of all processes that answer on this machine."""

    processes: list[ProcessTree]


async def trees(observed: Observed, _: Nothing) -> Trees:
    """The supervision trees of the processes."""
    states = await observed.source.states()
    return Trees(
        processes=[
            ProcessTree(
                system=state.system,
                process=state.process,
                uptime=state.uptime,
                unanswered=state.unanswered,
                children=[_child(node, _supervisors(state.statistics), None) for node in state.tree],
            )
            for state in states
        ]
    )


def _supervisors(statistics: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if statistics is None else statistics.get("supervisors", {})


def _child(
    node: Mapping[str, Any], supervisors: Mapping[str, Any], parent: Mapping[str, Any] | None
) -> Child:
    """The node of a child, with what the statistics of its supervisor and its own say."""
    own = supervisors.get(node["name"]) if node["kind"] == "supervisor" else None
    rules = own or {}
    return Child(
        name=node["name"],
        kind=node["kind"],
        state=node["state"],
        restart=node["restart"],
        restarts=node["restarts"],
        waiting=node["waiting"],
        restart_in=((parent or {}).get("restarting") or {}).get(node["name"]),
        restarts_left=rules.get("left"),
        max_restarts=rules.get("budget"),
        within=rules.get("within"),
        why=rules.get("reason"),
        children=[_child(each, supervisors, own) for each in node["children"]],
    )
