"""What follows in a scenario, compared with what is expected."""

from collections.abc import Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import zip_longest
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import METADATA, DomainEvent
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import CatchUp, Scheduled, Unscheduled
from uno_actors.domain.values import pack_value
from uno_actors.errors import CommandRejected

A = TypeVar("A", bound=AggregateRoot)

Expected = DomainEvent | type[DomainEvent]

Target = tuple[type[AggregateRoot], str]
"""The class of an aggregate, and its id."""

NOW = datetime(2001, 1, 1, tzinfo=UTC)
"""When scenarios take place."""


class Then(Generic[A]):
    """The outcome of the commands.

    Attributes:
        events: The events to record, without those of schedules.
        scheduled: What is scheduled.
        unscheduled: The keys of what is unscheduled.
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
        self.events = tuple(event for event in events if not isinstance(event, (Scheduled, Unscheduled)))
        self.scheduled = tuple(event for event in events if isinstance(event, Scheduled))
        self.unscheduled = tuple(event.key for event in events if isinstance(event, Unscheduled))
        self._schedules_compared = 0
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
            why = difference(want, have)
            if why is None:
                lines.append(f"    {shown(have)}")
                continue
            same = False
            lines += [f"  - {shown(want)}"] if want is not None else []
            lines += [f"  + {shown(have)}{why and f'   ({why})'}"] if have is not None else []
        if not same:
            table = "\n".join(lines) or "    nothing"
            raise AssertionError(f"{self._story}\n  (- expected, + found)\n{table}")
        return self

    def replies(self, expected: object) -> Self:
        """Check that the reply to the last command equals ``expected``.

        Raises:
            AssertionError: The reply differs, or the command was rejected.
        """
        if self.rejection is not None:
            raise AssertionError(
                f"{self._story}: expected the reply {expected!r}, found {shown(self.rejection)}"
            )
        if self.reply != expected:
            raise AssertionError(f"{self._story}: expected the reply {expected!r}, found {self.reply!r}")
        return self

    def schedules(
        self,
        command: Command[Any] | type[Command[Any]] | None = None,
        *,
        to: Target | type[AggregateRoot] | None = None,
        after: timedelta | float | None = None,
        at: datetime | None = None,
        every: str | None = None,
        tz: str | None = None,
        catch_up: CatchUp | None = None,
        key: str | None = None,
    ) -> Self:
        """Check the next command that is scheduled; without arguments, that no more are.

        Args:
            command: A command with the same fields, or its class.
            to: The class and the id of the aggregate, or the class alone. Default is any.
            after: Seconds, or a ``timedelta``, from now to when it is due. Default is any.
            at: When it is due. Default is any.
            every: Its cron expression. Default is any.
            tz: The time zone of that. Default is any.
            catch_up: Which times are made up for. Default is any.
            key: Its key. Default is any.

        Raises:
            AssertionError: Another command is scheduled, or none.
        """
        rest = self.scheduled[self._schedules_compared :]
        if command is None:
            if rest:
                found = "; ".join(map(_schedule, rest))
                raise AssertionError(f"{self._story}: schedules {found}, and nothing was expected")
            return self
        if not rest:
            before = "; ".join(map(_schedule, self.scheduled))
            found = f"nothing after {before}" if before else "nothing"
            raise AssertionError(f"{self._story}: expected that it schedules {shown(command)}, found {found}")
        self._schedules_compared += 1
        wanted = {"every": every, "tz": tz, "catch_up": catch_up}
        wrong = [*_wrong_command(rest[0].command, command, to), *_wrong_time(rest[0], after, at)]
        wrong += _wrong_values(rest[0], wanted, key)
        if wrong:
            expected = f"expected that it schedules {shown(command)}, found {_schedule(rest[0])}"
            raise AssertionError(f"{self._story}: {expected} ({'; '.join(wrong)})")
        return self

    def unschedules(self, *keys: str) -> Self:
        """Check that exactly the schedules of these keys are unscheduled, in this order.

        Raises:
            AssertionError: Others are.
        """
        if self.unscheduled != keys:
            found = ", ".join(map(repr, self.unscheduled)) or "nothing"
            wanted = ", ".join(map(repr, keys)) or "nothing"
            raise AssertionError(f"{self._story}: expected that it unschedules {wanted}, found {found}")
        return self

    def leaves(self, **attributes: object) -> Self:
        """Check attributes of the aggregate.

        Raises:
            AssertionError: One of them has another value.
        """
        found = {name: getattr(self.aggregate, name) for name in attributes}
        wrong = [name for name in attributes if found[name] != attributes[name]]
        if wrong:
            reason = "; ".join(f"{name} is {found[name]!r}, expected {attributes[name]!r}" for name in wrong)
            raise AssertionError(f"{self._story}: {reason}")
        return self

    def __repr__(self) -> str:
        return f"<{self._story}: {listed(self.events) or 'nothing'}, {self.rejection or self.reply!r}>"


def freeze(aggregate: AggregateRoot) -> None:
    """Let it be `NOW` for ``aggregate``, so that what it schedules can be compared."""
    aggregate._time = NOW.timestamp


def _schedule(event: Scheduled) -> str:
    command = event.command
    when = f"every={event.every!r}, tz={event.tz!r}" if event.every else f"after={event.due - NOW}"
    return (
        f"{command.command} {command.fields} to ({command.aggregate_type}, {command.aggregate_id!r}), {when},"
        f" key={event.key!r}"
    )


def _wrong_command(
    found: OutgoingCommand, wanted: Command[Any] | type[Command[Any]], to: Target | type[AggregateRoot] | None
) -> list[str]:
    wrong = []
    kind = wanted if isinstance(wanted, type) else type(wanted)
    if found.command != kind.__name__:
        wrong.append(f"it is a {found.command}")
    elif isinstance(wanted, Command) and (why := difference(wanted, found.read(kind, wanted.command_id))):
        wrong.append(why)
    aggregate, aggregate_id = to if isinstance(to, tuple) else (to, None)
    if aggregate is not None and aggregate.aggregate_type != found.aggregate_type:
        wrong.append(f"expected to {aggregate.__name__}")
    if aggregate_id not in (None, found.aggregate_id):
        wrong.append(f"expected to {aggregate_id!r}")
    return wrong


def _wrong_time(found: Scheduled, after: timedelta | float | None, at: datetime | None) -> list[str]:
    wrong = []
    if after is not None and found.due - NOW != (
        after if isinstance(after, timedelta) else timedelta(seconds=after)
    ):
        wrong.append(f"it is due after {found.due - NOW}, expected {after}")
    if at is not None and found.due != (at if at.tzinfo is not None else at.replace(tzinfo=UTC)):
        wrong.append(f"it is due at {found.due}, expected {at}")
    return wrong


def _wrong_values(found: Scheduled, wanted: dict[str, str | None], key: str | None) -> list[str]:
    wrong = [
        f"{name} is {getattr(found, name)!r}, expected {value!r}"
        for name, value in wanted.items()
        if value not in (None, getattr(found, name))
    ]
    if key is not None and found.key != key:
        wrong.append(f"its key is {found.key!r}, expected {key!r}")
    return wrong


def _is_rejection(one: object) -> bool:
    return isinstance(one, CommandRejected) or (isinstance(one, type) and issubclass(one, CommandRejected))


def difference(want: Any, have: Any) -> str | None:
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
    metadata = METADATA if issubclass(kind, DomainEvent) else Command.model_fields.keys()
    looked_at = [name for name in kind.model_fields if name not in metadata or name in want.model_fields_set]
    wrong = [name for name in looked_at if getattr(have, name) != getattr(want, name)]
    return (
        ", ".join(f"{name} is {getattr(have, name)!r}, expected {getattr(want, name)!r}" for name in wrong)
        or None
    )


def differ(one: object, other: object) -> bool:
    """Whether two values surely differ; objects that only equal themselves do not count."""
    if one is other or one == other:
        return False
    try:
        return pack_value(one, {}) != pack_value(other, {})
    except (TypeError, ValueError):
        return type(one) is not type(other) or isinstance(one, (BaseModel, Enum)) or is_dataclass(one)


def listed(messages: Sequence[object]) -> str:
    """Events and commands with only their payload."""
    return ", ".join(map(shown, messages))


def shown(message: object) -> str:
    """An event or a command with only its payload."""
    if isinstance(message, type):
        return message.__name__
    if isinstance(message, CommandRejected):
        return f"{type(message).__name__}({str(message)!r})"
    if isinstance(message, (DomainEvent, Command)):
        without = METADATA if isinstance(message, DomainEvent) else Command.model_fields.keys()
        names = [name for name in type(message).model_fields if name not in without]
        fields = ", ".join(f"{name}={getattr(message, name)!r}" for name in names)
        return f"{type(message).__name__}({fields})"
    return repr(message)


def check_replay(
    decided: AggregateRoot, replayed: AggregateRoot, story: str, but: Sequence[str] = ()
) -> None:
    """Check that a replay gives the same state, except the attributes ``but``.

    Raises:
        AssertionError: It does not.
    """
    ours, others = getattr(decided, "__dict__", {}), getattr(replayed, "__dict__", {})
    names = [
        name
        for name in {**ours, **others}
        if name not in (*but, "_time", "_schedules") and differ(ours.get(name), others.get(name))
    ]
    if names:
        found = "; ".join(
            f"{name} is {ours.get(name)!r} but {others.get(name)!r} after a replay" for name in names
        )
        raise AssertionError(f"{story}: {found}. Change state in apply methods alone")
