"""The handler that sends what was fired. Its failures are those of any handler: tried again, then a dead letter."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.outgoing_commands import class_named
from uno_actors.domain.schedules import Fired
from uno_actors.errors import (
    CommandIdReused,
    CommandRejected,
    InvalidSchedule,
    ReplyNotRecorded,
    UnknownAggregateType,
)
from uno_actors.handlers.spec import EventHandler, HandlerContext

AT_ONCE = 32
"""Maximum number of commands under way."""


@dataclass
class Counts:
    """Numbers of commands.

    Attributes:
        sent: Commands sent that have taken effect.
        rejected: Commands sent that their aggregates have rejected.
        failed: Attempts that failed.
    """

    sent: int = 0
    rejected: int = 0
    failed: int = 0


class Sender(EventHandler[Fired]):
    """Sends each command that was fired, those to one aggregate in order, as far as there is one: in each log.

    A rejection is the aggregate's answer, as to a command that a program tells it, such as to a deadline that comes at
    the moment of the payment. It is counted and logged, and the handler continues.

    Args:
        types: The aggregate classes that the system serves.
        done: Called with the position of each event that is done.

    Attributes:
        counts: Those of all its partitions.
    """

    def __init__(
        self,
        types: Callable[[], dict[str, type[AggregateRoot]]],
        done: Callable[[int], object],
    ) -> None:
        super().__init__(Fired)
        self._types = types
        self._done = done
        self._turns: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self.counts = Counts()

    @override
    async def handle(self, event: Fired, context: HandlerContext) -> None:
        to = event.command.aggregate_type, event.command.aggregate_id
        lock, users = self._turns.get(to, (asyncio.Lock(), 0))
        self._turns[to] = lock, users + 1
        try:
            async with lock:
                await self._send(event, context)
            self._done(context.position)
        except BaseException:
            self.counts.failed += 1
            raise
        finally:
            lock, users = self._turns.pop(to)
            if users > 1:
                self._turns[to] = lock, users - 1

    async def _send(self, event: Fired, context: HandlerContext) -> None:
        aggregate = self._class_of(event)
        command = event.command.read(_command_class(aggregate, event), event.command_id)
        try:
            await context.system.aggregate(aggregate, event.command.aggregate_id).ask(command)
        except CommandRejected as rejection:
            self.counts.rejected += 1
            context.logger.info(
                "scheduled command was rejected",
                command=event.command.command,
                to=f"{event.command.aggregate_type}<{event.command.aggregate_id}>",
                reason=str(rejection),
            )
        except (ReplyNotRecorded, CommandIdReused):
            self.counts.sent += 1  # before; the id is ours, so only the command's class has changed
        else:
            self.counts.sent += 1

    def _class_of(self, event: Fired) -> type[AggregateRoot]:
        """The class of the aggregate to send to.

        Raises:
            UnknownAggregateType: The program has no class of this type.
        """
        name = event.command.aggregate_type
        served = self._types()
        found = served.get(name) or next(
            (kind for kind in _subclasses(AggregateRoot) if kind.aggregate_type == name), None
        )
        if found is None:
            raise UnknownAggregateType(name, served)
        return found


def _subclasses(kind: type[AggregateRoot]) -> list[type[AggregateRoot]]:
    """All classes of aggregates, the last defined first: a class that was defined again replaces the earlier one."""
    found = [each for below in kind.__subclasses__() for each in (below, *_subclasses(below))]
    return found[::-1]


def _command_class(aggregate: type[AggregateRoot], event: Fired) -> type[Command[Any]]:
    """The class of the command.

    Raises:
        InvalidSchedule: The aggregate handles no command of this name any more.
    """
    name = event.command.command
    found = class_named(name, aggregate._commands)
    if found is None:
        known = ", ".join(kind.__name__ for kind in aggregate._commands) or "none"
        raise InvalidSchedule(
            f"{name} was scheduled for {aggregate.__name__}, which handles no command of this name; it handles {known}"
        )
    return found
