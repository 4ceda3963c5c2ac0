"""Commands of other nodes: they are read, checked and handled here, and answered."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from typing_extensions import override

from uno_actors.actors.future import Settled
from uno_actors.aggregates.envelope import CommandReply
from uno_actors.cluster.links.port import LARGEST, Answer
from uno_actors.cluster.wire import NO_REPLY, Request, error_answer, reply_answer
from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id
from uno_actors.domain.command_payloads import unpack_command
from uno_actors.domain.commands import Command
from uno_actors.errors import OutcomeUnknown, ReplyNotSent, SystemNotRunning, describe
from uno_actors.flight_recorder.ring import Arrival
from uno_actors.store.codec import StreamId


class NotKnownHere(Exception):
    """This node cannot serve the command; another one may."""


class CommandNames:
    """The commands of the aggregates that a system serves, by the names under which they travel.

    Args:
        types: The aggregate classes by type name; the mapping may grow.
    """

    def __init__(self, types: Mapping[str, type[AggregateRoot]]) -> None:
        self._types = types
        self._classes: dict[tuple[type[AggregateRoot], str], type[Command[Any]]] = {}

    def announced(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """For each aggregate type, the names of its commands; sorted, as `Member.commands`."""
        return tuple(
            (name, tuple(sorted({command.__name__ for command in self._types[name]._commands})))
            for name in sorted(self._types)
        )

    def handled_as(self, aggregate_type: str, command: type[Command[Any]]) -> str:
        """The announced name of ``command``: of its class, or of the base for which the aggregate has a method."""
        aggregate = self._types.get(aggregate_type)
        handled = aggregate._commands if aggregate is not None else {}
        return next((base.__name__ for base in command.__mro__ if base in handled), command.__name__)

    def command(self, request: Request) -> Command[Any]:
        """The command of a request.

        Raises:
            NotKnownHere: This node does not know the aggregate type, the command, or these fields of it.
        """
        aggregate = self._types.get(request.aggregate_type)
        if aggregate is None:
            raise NotKnownHere(f"it does not serve {request.aggregate_type}")
        kind = self._classes.get((aggregate, request.command))
        if kind is None:
            kind = self._classes[aggregate, request.command] = _class_named(aggregate, request.command)
        ids = {
            "command_id": request.command_id,
            "correlation_id": request.correlation_id,
            "causation_id": request.causation_id,
        }
        try:
            check_aggregate_id(request.aggregate_id)
            return unpack_command(kind, request.payload, ids, request.left_out)
        except Exception as error:
            raise NotKnownHere(f"it cannot read {request.command}: {describe(error)}") from error


def _class_named(aggregate: type[AggregateRoot], name: str) -> type[Command[Any]]:
    """The class of a command that ``aggregate`` handles: one with a method, or a subclass of one.

    Raises:
        NotKnownHere: There is none, or there are several.
    """
    found: list[type[Command[Any]]] = [kind for kind in aggregate._commands if kind.__name__ == name]
    waiting = list(aggregate._commands) if not found else []
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__name__ == name and kind not in found:
                found.append(kind)
    if len(found) != 1:
        problem = "several commands named" if found else "no command"
        raise NotKnownHere(f"its {aggregate.aggregate_type} handles {problem} {name}")
    return found[0]


class ServedReply(CommandReply[Any]):
    """The reply to a command of another node: it is sent there.

    Args:
        stream: Of the aggregate.
        command: The command.
        answer: Sends the bytes of the answer.
        node: Name of this node.
        told: Whether the sender wants to know only that the command was handled.
        is_over: Whether this node has stopped handling commands.
        wants_place: Whether the sender wants to know where the command was recorded.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        stream: StreamId,
        command: Command[Any],
        answer: Answer,
        node: str,
        told: bool,
        is_over: Callable[[], bool],
        wants_place: bool = False,
    ) -> None:
        self.asked = Arrival(monotonic())
        self._stream = stream
        self._command = command
        self._answer = answer
        self._node = node
        self._told = told
        self._is_over = is_over
        self._wants_place = wants_place

    @override
    def _unseen(self, error: BaseException) -> None:
        return None  # the asker on the other node gets it

    @override
    def _decide(self, outcome: Settled) -> bool:
        if self.__dict__.setdefault("_outcome", outcome) is not outcome:
            return False
        reply, error, _ = outcome
        if error is None:
            place = self.place if self._wants_place else None
            self._send(
                NO_REPLY if self._told else reply_answer(reply, self._command, self._node, place), reply
            )
        elif not (self._is_over() and isinstance(error, (SystemNotRunning, OutcomeUnknown))):
            self._send(error_answer(error, self._node), error)
        # Otherwise this node ends before the command has ended. Its link ends too, and that tells the sender to ask
        # another node.
        return True

    def _send(self, body: bytes, what: object) -> None:
        if len(body) > LARGEST:
            reason = f"it has {len(body):,} bytes; at most {LARGEST:,} travel"
            command = self._command
            refused = ReplyNotSent(
                type(command).__name__, command.command_id, type(what).__qualname__, self._node, reason
            )
            body = error_answer(refused, self._node)
        self._answer(body)
