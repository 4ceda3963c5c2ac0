"""The handler of a process manager: passes each event to its processes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from typing_extensions import override

from uno_actors.domain.events import DomainEvent
from uno_actors.handlers.spec import EventHandler, HandlerContext
from uno_actors.processes.messages import PROGRESS
from uno_actors.processes.reactions import Reacting, goes_by_correlation, processes_of
from uno_actors.processes.steps import Ignored, System, take_step
from uno_actors.shards import shard_of_key
from uno_actors.store.codec import Record
from uno_actors.store.handler_names import partition_in
from uno_actors.tasks import side_by_side

MOST_IGNORED = 10_000
"""Processes that have not started whose ignored events a handler remembers."""
PER_PROCESS = 100
"""Ignored events that it remembers of each of them."""


class ProcessHandler(EventHandler[DomainEvent]):
    """The handler of a process manager.

    Args:
        manager: The class of its processes.
        lingers: See `take_step`.
    """

    def __init__(self, manager: type[Reacting], *, lingers: bool) -> None:
        super().__init__()
        self._manager = manager
        self._lingers = lingers
        self._by_correlation = goes_by_correlation(manager)
        self._ignored: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def processes_of(self, record: Record, decode: Callable[[], DomainEvent]) -> tuple[str, ...]:
        """The processes that an event belongs to, by which the handler is partitioned and keeps the order of events."""
        if self._by_correlation:
            return (record.correlation_id,) if record.correlation_id else ()
        event = decode()
        return () if isinstance(event, PROGRESS) else processes_of(self._manager, event)

    @override
    async def handle(self, event: DomainEvent, context: HandlerContext) -> None:
        if isinstance(event, PROGRESS):
            return
        ids = self._of_partition(processes_of(self._manager, event), context)
        for outcome in await side_by_side(*(self._pass_on(each, event, context) for each in ids)):
            if outcome is not None:
                raise outcome

    @staticmethod
    def _of_partition(ids: tuple[str, ...], context: HandlerContext) -> tuple[str, ...]:
        """Those that belong to the partition that handles the event, if the handler is partitioned by process."""
        partition = partition_in(context.handler)
        if partition is None or len(ids) < 2 or _system(context).store.logs > 1:
            return ids
        _, number, count = partition
        return tuple(each for each in ids if shard_of_key("", each) % count == number - 1)

    async def _pass_on(self, process_id: str, event: DomainEvent, context: HandlerContext) -> None:
        ignored = self._ignored.get(process_id, ())
        try:
            await take_step(
                self._manager, process_id, event, ignored, _system(context), lingers=self._lingers
            )
        except Ignored as why:
            if event.event_id not in ignored:
                self._ignored[process_id] = (*ignored, event.event_id)[-PER_PROCESS:]
                self._ignored.move_to_end(process_id)
                if len(self._ignored) > MOST_IGNORED:
                    self._ignored.popitem(last=False)
            context.logger.debug("event ignored", process=process_id, reason=str(why))
        else:
            if ignored:
                self._ignored.pop(process_id, None)

    def __repr__(self) -> str:
        return f"{self._manager.__name__}.handler()"


def _system(context: HandlerContext) -> System:
    """The system, which has more than it offers to handlers."""
    return cast("System", context.system)
