"""Given some events, when a command arrives, then these events follow: an aggregate's rules as readable tests.

    given(Account, Deposited(amount=10)).when(Withdraw(amount=4)).then(Withdrawn(amount=4)).replies(6)
    given(Account).when(Withdraw(amount=4)).then(CommandRejected("not enough money"))

No runtime and no store are involved, but mistakes that would show up there are found: an event that cannot be
recorded, and state that a command's method changes outside of ``apply_…`` and that a replay would lose.
"""

from collections.abc import Sequence
from dataclasses import is_dataclass
from enum import Enum
from itertools import zip_longest
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from uno_actors.domain.aggregate import AggregateRoot, check_is_aggregate, new_aggregate
from uno_actors.domain.commands import Command
from uno_actors.domain.events import METADATA, DomainEvent
from uno_actors.domain.values import pack_value
from uno_actors.errors import CommandRejected, InvalidAggregate, MissingApply, UnknownCommand
from uno_actors.handlers.process_manager import ProcessManager
from uno_actors.store.codec import to_record

A = TypeVar("A", bound=AggregateRoot)

Expected = DomainEvent | type[DomainEvent]


def given(aggregate_type: type[A], *events: DomainEvent, id: str = "test") -> "Given[A]":
    """An aggregate with these events in its past; without any, a new one.

    Args:
        aggregate_type: Its class.
        *events: In order. Fields that `AggregateRoot.register_event` sets may be left out.
        id: Its id.

    Raises:
        MissingApply: The class has no ``apply_…`` method for one of them.
        InvalidAggregate: ``aggregate_type`` is not an aggregate class.
        InvalidAggregateId: ``id`` cannot name an aggregate.
    """
    check_is_aggregate(aggregate_type)
    _check_are_events(aggregate_type, events)
    return Given(aggregate_type, id, events)


def _check_are_events(aggregate_type: type[AggregateRoot], found: Sequence[object]) -> None:
    for one in found:
        if not isinstance(one, DomainEvent):
            reason = f"given(...) takes events that have happened; found {one!r}: commands go into .when(...)"
            raise InvalidAggregate(aggregate_type.__name__, reason)


class Given(Generic[A]):
    """An aggregate with a past; see `given`."""

    def __init__(self, aggregate_type: type[A], id: str, events: Sequence[DomainEvent]) -> None:
        self._type = aggregate_type
        self._id = id
        self._events = [
            event.stamped(
                aggregate_id=id, aggregate_type=aggregate_type.aggregate_type, aggregate_version=place
            )
            for place, event in enumerate(events, start=1)
        ]
        try:
            self._replayed(())  # reports an event that cannot be applied
        except MissingApply as missing:
            self._check_takes_commands(missing)
            raise

    def when(self, *commands: Command[Any]) -> "Then[A]":
        """Run the commands one after the other; a rejected one ends the run.

        Raises:
            AssertionError: The state differs from what a replay of the events produces.
            UnknownCommand: The class does not handle one of them.
            InvalidAggregate: The class is a process manager, which reacts to events.
            EventNotSerializable: An event could not be recorded.
            Exception: Any other error that a command's method raises.
        """
        aggregate, recorded = self._replayed(()), list[DomainEvent]()
        reply, rejection = None, None
        for command in commands:
            try:
                reply = aggregate.handle(command)
            except UnknownCommand as unknown:
                self._check_takes_commands(unknown)
                raise
            except CommandRejected as error:
                reply, rejection = None, error
                aggregate = self._replayed(recorded)  # as the runtime does, if it had registered events
                break
            recorded += aggregate.take_pending_events()
        for event in recorded:
            to_record(event)
        story = f"{self._type.__name__} {self._id!r}, given {_list(self._events) or 'nothing'}, when {_list(commands)}"
        self._check_replay(aggregate, self._replayed(recorded), story)
        return Then(story, recorded, reply, rejection, aggregate)

    def _replayed(self, recorded: Sequence[DomainEvent]) -> A:
        return new_aggregate(self._type, self._id).replay([*self._events, *recorded])

    def _check_takes_commands(self, cause: Exception) -> None:
        """Explain how to test a process manager, which takes events, not commands."""
        if issubclass(self._type, ProcessManager):
            name = self._type.__name__
            reason = (
                "given(...).when(...) is for aggregates, which take commands; a process reacts to events. Test it in"
                f' ActorSystem("memory:", aggregates=[..., {name}], handlers=[{name}.handler()]): record the events,'
                " wait for system.settled(), and look at what it has sent"
            )
            raise InvalidAggregate(name, reason) from cause

    def _check_replay(self, decided: A, replayed: A, story: str) -> None:
        ours, others = getattr(decided, "__dict__", {}), getattr(replayed, "__dict__", {})
        names = [name for name in {**ours, **others} if _differ(ours.get(name), others.get(name))]
        if names:
            found = "; ".join(
                f"{name} is {ours.get(name)!r} but {others.get(name)!r} after a replay" for name in names
            )
            raise AssertionError(f"{story}: {found}. Change state in apply methods alone")

    def __repr__(self) -> str:
        return f"given({self._type.__name__}, {_list(self._events)})"


class Then(Generic[A]):
    """The outcome of the commands.

    Attributes:
        events: The events to record.
        reply: The reply to the last command; ``None`` if it was rejected.
        rejection: Why the last command was rejected, or ``None``.
        aggregate: The aggregate afterwards.
    """

    def __init__(
        self,
        story: str,
        events: Sequence[DomainEvent],
        reply: Any,
        rejection: CommandRejected | None,
        aggregate: A,
    ) -> None:
        self.events = tuple(events)
        self.reply = reply
        self.rejection = rejection
        self.aggregate = aggregate
        self._story = story

    def then(self, *expected: Expected | CommandRejected | type[CommandRejected]) -> Self:
        """Check that exactly these events follow, in this order, and then the rejection, if one is given.

        An event matches if it has the same type, the same payload, and the metadata that was set on the expected
        one; a class matches any of its events. A rejection matches if it has the same class and text; a class, or
        a rejection without text, matches any text.

        Raises:
            AssertionError: Other events follow; the text shows the difference.
        """
        events = [one for one in expected if not _is_rejection(one)]
        rejections = [one for one in expected if _is_rejection(one)]
        if len(rejections) > 1 or (rejections and expected[-1] is not rejections[0]):
            raise ValueError("a rejection ends what follows: give one, and give it last")
        wanted: list[Any] = [*events, *rejections]
        found: list[Any] = [*self.events, *([] if self.rejection is None else [self.rejection])]
        lines, same = [], True
        for want, have in zip_longest(wanted, found):
            why = _difference(want, have)
            if why is None:
                lines.append(f"    {_text(have)}")
                continue
            same = False
            lines += [f"  - {_text(want)}"] if want is not None else []
            lines += [f"  + {_text(have)}{why and f'   ({why})'}"] if have is not None else []
        if not same:
            shown = "\n".join(lines) or "    nothing"
            raise AssertionError(f"{self._story}\n  (- expected, + found)\n{shown}")
        return self

    def replies(self, expected: object) -> Self:
        """Check that the reply to the last command equals ``expected``.

        Raises:
            AssertionError: The reply differs, or the command was rejected.
        """
        if self.rejection is not None:
            raise AssertionError(
                f"{self._story}: expected the reply {expected!r}, found {_text(self.rejection)}"
            )
        if self.reply != expected:
            raise AssertionError(f"{self._story}: expected the reply {expected!r}, found {self.reply!r}")
        return self

    def leaves(self, **attributes: object) -> Self:
        """Check attributes of the aggregate.

        Raises:
            AssertionError: One of them has another value.
        """
        found = {name: getattr(self.aggregate, name) for name in attributes}
        wrong = [name for name in attributes if found[name] != attributes[name]]
        if wrong:
            shown = "; ".join(f"{name} is {found[name]!r}, expected {attributes[name]!r}" for name in wrong)
            raise AssertionError(f"{self._story}: {shown}")
        return self

    def __repr__(self) -> str:
        return f"<{self._story}: {_list(self.events) or 'nothing'}, {self.rejection or self.reply!r}>"


def _is_rejection(one: object) -> bool:
    return isinstance(one, CommandRejected) or (isinstance(one, type) and issubclass(one, CommandRejected))


def _difference(want: Any, have: Any) -> str | None:
    """How ``have`` differs from ``want``; ``None`` if it does not."""
    if want is None or have is None:
        return ""
    kind: Any = want if isinstance(want, type) else type(want)
    if type(have) is not kind and not (isinstance(want, type) and isinstance(have, want)):
        return ""
    if isinstance(want, type):
        return None
    if isinstance(want, CommandRejected):
        return None if str(want) in ("", str(have)) else ""
    looked_at = [name for name in kind.model_fields if name not in METADATA or name in want.model_fields_set]
    wrong = [name for name in looked_at if getattr(have, name) != getattr(want, name)]
    shown = ", ".join(
        f"{name} is {getattr(have, name)!r}, expected {getattr(want, name)!r}" for name in wrong
    )
    return shown or None


def _differ(one: object, other: object) -> bool:
    """Whether two values surely differ; objects that only equal themselves do not count."""
    if one is other or one == other:
        return False
    try:
        return pack_value(one, {}) != pack_value(other, {})
    except (TypeError, ValueError):
        return type(one) is not type(other) or isinstance(one, (BaseModel, Enum)) or is_dataclass(one)


def _list(messages: Sequence[object]) -> str:
    return ", ".join(map(_text, messages))


def _text(message: object) -> str:
    """An event or a command with only its payload."""
    if isinstance(message, type):
        return message.__name__
    if isinstance(message, CommandRejected):
        return f"{type(message).__name__}({str(message)!r})"
    if isinstance(message, (DomainEvent, Command)):
        without = METADATA if isinstance(message, DomainEvent) else Command.model_fields.keys()
        names = [name for name in type(message).model_fields if name not in without]
        shown = ", ".join(f"{name}={getattr(message, name)!r}" for name in names)
        return f"{type(message).__name__}({shown})"
    return repr(message)
