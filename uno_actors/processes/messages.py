"""What a process records beside the events of its own, and the commands that make it react."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.outgoing_commands import OutgoingCommand

C = TypeVar("C", bound=Command[Any])


@dataclass(frozen=True, slots=True)
class Refusal(Generic[C]):
    """A command of the process was rejected. React to, for example, ``Refusal[Deposit]`` to compensate.

    Attributes:
        command: The rejected command.
        reason: The text of the aggregate's `CommandRejected`.
    """

    command: C
    reason: str


class Outgoing(OutgoingCommand):
    """A command that a process sends. The name of the class is in what processes have recorded."""

    use: ClassVar[str] = "a process records what it sends"

    def with_id(self, command_id: str) -> Self:
        """The same with the id of the command among its fields, where earlier versions of this program pass over it."""
        rest = self.fields.removeprefix("{")
        begin = f'{{"command_id":{json.dumps(command_id)}'
        return self.model_copy(update={"fields": f"{begin}{'' if rest == '}' else ','}{rest}"})

    def id_or(self, derived: str) -> str:
        """The id of the command that was recorded, or ``derived``."""
        found: object = json.loads(self.fields).get("command_id")
        return found if isinstance(found, str) else derived


def id_of_sent(process_type: str, process_id: str, to: str, place: int) -> str:
    """The id of a command that a process sends.

    Several processes, also of several managers, react to one event, and may send commands to one aggregate: the ids
    differ by the process.

    Args:
        process_type: The aggregate type of the process.
        process_id: Its id.
        to: The id of the event or of the refused command to which it reacts.
        place: The place of the command in the reaction.
    """
    process = hashlib.blake2b(f"{process_type}\0{process_id}".encode(), digest_size=8).hexdigest()
    return f"{to}.{place}.{process}"


class Reacted(DomainEvent):
    """A process has reacted. ``to`` is the id of the event or of the refused command.

    After all commands that follow from an event were sent, this is recorded once more with an empty ``sent``.
    """

    event_type: str = "uno_actors.Reacted"
    to: str
    sent: list[Outgoing]


class ProcessEnded(DomainEvent):
    """A process has ended: see `uno_actors.ProcessManager.end`."""

    event_type: str = "uno_actors.ProcessEnded"


class ProcessRestarted(DomainEvent):
    """A process that had ended has started again, with the state of a new one."""

    event_type: str = "uno_actors.ProcessRestarted"


PROGRESS = (Reacted, ProcessEnded, ProcessRestarted)
"""What processes record about themselves. No process reacts to it: reacting to a reaction would never end."""


class Step(Command[list[Outgoing] | None]):
    """To a process: react to ``message`` unless it has already; the reply is the commands to send, or a `Known`.

    Each method with ``@reacts`` has a subclass of its name, so that logs, errors and statistics show that name. A step
    is handled on the node that runs the handler, since any event may be in it. The process may be in the memory of its
    owner too; the expected version is the fence, as ever.

    Attributes:
        to: The id of the event or of the refused command.
        message: The event, or the `Refusal`; ``None`` if the process has reacted to it, and the command is repeated.
        is_over: Whether all commands that follow from the event ``to`` were sent, which is to be recorded.
        ignored: The ids of earlier events that found no process. If this event starts it, they are recorded as
            ignored, so that they are ignored again when they are delivered again.
    """

    _travels: ClassVar[bool] = False

    to: str
    message: Any = None
    is_over: bool = False
    ignored: tuple[str, ...] = ()


class Known(list[Outgoing]):
    """The reply to a step that changes nothing.

    Attributes:
        refused: The places of the commands whose refusals the process has reacted to.
        ignored: Why the event is ignored; empty if it is one to which the process has reacted before.
    """

    def __init__(
        self, sent: list[Outgoing] | None = None, refused: frozenset[int] = frozenset(), ignored: str = ""
    ) -> None:
        super().__init__(sent or ())
        self.refused = refused
        self.ignored = ignored
