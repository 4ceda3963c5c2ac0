"""What an actor or a supervisor does: findings of facts, without any I/O."""

from collections.abc import Iterator

from uno_actors.inquiry.explanation import Finding, State
from uno_actors.inquiry.facts import ChildFacts, Facts, ProcessFacts
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.words import age, listed
from uno_actors.printable import counted

WORKING = frozenset({"live", "idle", "handling", "running", "standby", "starting"})
"""States of children that need no attention."""


def of_children(facts: Facts, remedies: Remedies, *, kind: str) -> Iterator[Finding]:
    """The actors or the supervisors of the name that was asked for, in each process."""
    for process in facts.processes:
        for child in process.children:
            if child.kind == kind:
                yield (
                    _of_actor(process, child, remedies) if kind == "actor" else _of_supervisor(process, child)
                )


def _of_actor(process: ProcessFacts, child: ChildFacts, remedies: Remedies) -> Finding:
    who = f"Actor {child.name}, in process {process.process} ({process.node}),"
    if child.restart_in is not None or child.state == "restarting":
        when = "" if child.restart_in is None else f" in {age(child.restart_in)}"
        says = f"{who} has failed, and its supervisor {child.supervisor} restarts it{when}."
        return Finding(f"{says} {_waiting(child)}", "waits", child.name)
    if child.state in ("stopped", "failed") and child.supervisor:
        mend = (remedies.restart_child(child.supervisor, child.name),)
        return Finding(f"{who} is {child.state}. {_waiting(child)}", "stuck", child.name, mend)
    state: State = "waits" if child.state == "handling" else "done"
    doing = "" if child.doing is None or child.state != "handling" else f": {child.doing}"
    says = f"{who} is {child.state}{doing}. {_waiting(child)}"
    return Finding(says, state, child.name)


def _waiting(child: ChildFacts) -> str:
    restarted = f", and it was restarted {counted(child.restarts, 'time')}" if child.restarts else ""
    if not child.waiting:
        return f"No message waits for it{restarted}."
    verb = "waits" if child.waiting == 1 else "wait"
    return f"{counted(child.waiting, 'message')} {verb} in its mailbox{restarted}."


def _of_supervisor(process: ProcessFacts, child: ChildFacts) -> Finding:
    who = f"Supervisor {child.name}, in process {process.process} ({process.node}),"
    if child.gave_up is not None:
        again = (
            ""
            if child.restart_in is None
            else f" Its own supervisor starts it again in {age(child.restart_in)}."
        )
        return Finding(f"{who} gave up: {child.gave_up}.{again}", "failed", child.name)
    others = [f"{name} is {state}" for name, state in child.children if state not in WORKING]
    what = "all of which work" if not others else f"of which {listed(others)}"
    says = f"{who} is {child.state} with {len(child.children)} {_children(child)}, {what}."
    return Finding(says, "waits" if others else "done", child.name)


def _children(child: ChildFacts) -> str:
    return "child" if len(child.children) == 1 else "children"
