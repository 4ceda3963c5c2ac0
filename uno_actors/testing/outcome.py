"""What follows in a scenario, compared with what is expected."""

from collections.abc import Sequence
from dataclasses import is_dataclass
from enum import Enum
from itertools import zip_longest
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import METADATA, DomainEvent
from uno_actors.domain.values import pack_value
from uno_actors.errors import CommandRejected

A = TypeVar("A", bound=AggregateRoot)

Expected = DomainEvent | type[DomainEvent]


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
        name for name in {**ours, **others} if name not in but and differ(ours.get(name), others.get(name))
    ]
    if names:
        found = "; ".join(
            f"{name} is {ours.get(name)!r} but {others.get(name)!r} after a replay" for name in names
        )
        raise AssertionError(f"{story}: {found}. Change state in apply methods alone")
