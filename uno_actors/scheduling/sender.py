"""The handler that sends what was fired. Its failures are those of any handler: tried again, then a dead letter."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.schedules import Fired
from uno_actors.errors import (
    CommandIdReused,
    CommandRejected,
    InvalidSchedule,
    ReplyNotRecorded,
    UnknownAggregateType,
)
from uno_actors.handlers.failures import error_text
from uno_actors.handlers.spec import EventHandler, HandlerContext
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter

AT_ONCE = 32
"""Maximum number of commands under way."""


class Sender(EventHandler[Fired]):
    """Sends each command that was fired, those to one aggregate in order.

    A rejection is the aggregate's answer, and asking again would not change it: the event becomes a dead letter at
    once, and the handler continues.

    Args:
        store: Keeps the dead letters.
        types: The aggregate classes that the system serves.
        done: Called with the position of each event that is done.

    Attributes:
        sent: Commands sent.
        failed: Commands that were rejected, and attempts that failed.
    """

    def __init__(
        self,
        store: EventStore,
        types: Callable[[], dict[str, type[AggregateRoot]]],
        done: Callable[[int], object],
    ) -> None:
        super().__init__(Fired)
        self._store = store
        self._types = types
        self._done = done
        self._turns: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self.sent = 0
        self.failed = 0

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
            self.failed += 1
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
            if context.attempt > 1:  # a retry of the dead letter
                raise
            self.failed += 1
            await self._set_aside(event, rejection, context)
        except (ReplyNotRecorded, CommandIdReused):
            self.sent += 1  # it took effect before; the id is ours, so only the command's class has changed
        else:
            self.sent += 1

    async def _set_aside(self, event: Fired, rejection: CommandRejected, context: HandlerContext) -> None:
        text, now = error_text(rejection), datetime.now(UTC)
        letter = DeadLetter(
            handler=context.handler,
            position=context.position,
            event_type=event.event_type,
            attempts=1,
            error=text.error,
            traceback="",
            first_failed=now,
            last_failed=now,
        )
        await self._store.save_progress({}, [letter])
        to = f"{event.command.aggregate_type}<{event.command.aggregate_id}>"
        context.logger.warning(
            "scheduled command was rejected", command=event.command.command, to=to, reason=str(rejection)
        )

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
    found = next((kind for kind in aggregate._commands if kind.__name__ == name), None)
    if found is None:
        known = ", ".join(kind.__name__ for kind in aggregate._commands) or "none"
        raise InvalidSchedule(
            f"{name} was scheduled for {aggregate.__name__}, which handles no command of this name; it handles {known}"
        )
    return found
