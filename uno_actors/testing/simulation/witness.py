"""What a run's commands and handlers have done, as observers of its systems have seen it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uno_actors.actors.future import Settled
from uno_actors.domain.commands import Command
from uno_actors.errors import CommandRejected
from uno_actors.observing import Observer
from uno_actors.store.codec import StreamId
from uno_actors.testing.simulation.core import Core


@dataclass(slots=True)
class Sent:
    """A command, by its id.

    Attributes:
        stream: Its aggregate.
        command: The command.
        acknowledged: How often its sender got a reply.
        decided: Events that its last decision has registered; ``None`` if it was never decided.
    """

    stream: StreamId
    command: Command[Any]
    acknowledged: int = 0
    decided: int | None = None


@dataclass(frozen=True, slots=True)
class Handled:
    """A step of a handler.

    Attributes:
        node: Where.
        incarnation: Of the node.
        kind: ``called``, ``handled``, ``failed`` or ``dead letter``.
        positions: Of the events in the log.
    """

    node: str
    incarnation: int
    kind: str
    positions: tuple[int, ...]


class Witness:
    """Has seen all systems of a run.

    Attributes:
        commands: By id.
        handlers: The steps of each handler by its name, in their order.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.commands: dict[str, Sent] = {}
        self.handlers: dict[str, list[Handled]] = {}

    def of(self, node: str, incarnation: int) -> "Observer":
        """Observes one system."""
        return _OfNode(self, node, incarnation)

    def sent(self, stream: StreamId, command: Command[Any]) -> Sent:
        """What is known of a command."""
        return self.commands.setdefault(command.command_id, Sent(stream, command))

    def answered(self, node: str, stream: StreamId, command: Command[Any], outcome: Settled) -> None:
        """A sender has its reply or its error."""
        value, error = outcome[0], outcome[1]
        short = f"{type(command).__name__} {command.command_id[:6]} of {stream}"
        if error is None:
            self.sent(stream, command).acknowledged += 1
            self.core.tell(node, "reply", f"{short}: {value!r}")
        else:
            kind = "rejected" if isinstance(error, CommandRejected) else "failed"
            self.core.tell(node, "reply", f"{short} {kind}: {type(error).__name__}: {error}")


class _OfNode(Observer):
    def __init__(self, witness: Witness, node: str, incarnation: int) -> None:
        self._witness = witness
        self._core = witness.core
        self._node = node
        self._incarnation = incarnation

    def command_arrived(self, stream: Any, command: Any, asked: bool) -> None:
        self._witness.sent(stream, command)
        self._core.tell(
            self._node, "command", f"{type(command).__name__} {command.command_id[:6]} for {stream}"
        )

    def command_decided(
        self, stream: Any, command: Any, seconds: float, events: int, error: BaseException | None
    ) -> None:
        self._witness.sent(stream, command).decided = 0 if error is not None else events

    def handler_called(self, handler: str, events: Sequence[Any], attempt: int) -> None:
        self._step(handler, "called", events)

    def handler_returned(
        self, handler: str, events: Sequence[Any], seconds: float, error: BaseException | None
    ) -> None:
        self._step(handler, "handled" if error is None else "failed", events)

    def dead_letter(self, handler: str, letter: Any) -> None:
        self._note(handler, "dead letter", (letter.position,))

    def _step(self, handler: str, kind: str, events: Sequence[Any]) -> None:
        self._note(handler, kind, tuple(event.position for event in events))

    def _note(self, handler: str, kind: str, positions: tuple[int, ...]) -> None:
        steps = self._witness.handlers.setdefault(handler, [])
        steps.append(Handled(self._node, self._incarnation, kind, positions))
        if kind != "called":
            self._core.tell(self._node, "handler", f"{handler} {kind} {', '.join(map(str, positions))}")

    def child_failed(
        self, supervisor: str, child: str, kind: str, error: BaseException, decision: str
    ) -> None:
        self._core.tell(
            self._node, "supervisor", f"{child} failed: {type(error).__name__}: {error}; {decision}"
        )
