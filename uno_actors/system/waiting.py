"""Waiting until handlers have handled what was recorded: in this process, on other nodes, and in other processes.

A handler of this process wakes the wait by its progress (`uno_actors.handlers.waits`). Other processes are asked once
and answer when their handler has come there: see `uno_actors.system.handlers_elsewhere`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from uno_actors.actors.ask import time_left
from uno_actors.aggregates.envelope import CommandReply
from uno_actors.aggregates.handled_reply import Handled, HandledReply
from uno_actors.clock import Clock, Timer
from uno_actors.errors import EventSetAside, InvalidPosition, NotHandled, WaitTimeout, describe
from uno_actors.handlers.command_events import events_of_command, letter_among
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.projection import is_shown_by_all
from uno_actors.handlers.subscription import Subscription
from uno_actors.handlers.waits import Arrival
from uno_actors.position_tokens import mark_of, positions_in
from uno_actors.quantities import is_count
from uno_actors.shards import shard_of_key
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import is_position_in, log_of_position
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord
from uno_actors.system.awaited_handlers import AwaitedHandlers, Target
from uno_actors.system.handler_host import HandlerHost
from uno_actors.system.handlers_elsewhere import HandlersElsewhere
from uno_actors.tasks import settle

R = TypeVar("R")


class Part(NamedTuple):
    """A handler or a partition that is waited for, and where it must come.

    Attributes:
        name: Its name.
        subscription: It in this process, whether or not it is run here; ``None`` if this process does not have it.
        position: Where it must come.
    """

    name: str
    subscription: Subscription | None
    position: int


Parts = Iterator[Part | Coroutine[Any, Any, Iterable[Part]]]
"""The handlers and partitions that are waited for: those that are known, and what finds out the others."""


class HandlerWaiting:
    """The waits of a system. Lives on the event loop; `plan` may be called from any thread.

    Args:
        handlers: Those of this process.
        elsewhere: Those of other processes.
        store: Holds the log.
        clock: Measures how long callers wait.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        on_loop: Calls a function on the event loop, now if the caller is on it; returns whether it will be called.
    """

    def __init__(
        self,
        handlers: HandlerHost,
        elsewhere: HandlersElsewhere,
        store: EventStore,
        clock: Clock,
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], object],
        on_loop: Callable[[Callable[[], None]], bool],
    ) -> None:
        self.clock = clock
        self.start_task = start_task
        self._handlers = handlers
        self._elsewhere = elsewhere
        self._store = store
        self._on_loop = on_loop
        self.awaited = AwaitedHandlers(handlers)
        self.open: set[_Wait] = set()
        self._closed = ""  # why, once it is
        self._shown: set[str] = set()  # partitioned projections whose views all partitions have built

    def close(self, reason: str) -> None:
        """End all waits; those that still begin end at once."""
        self._closed = reason
        self._elsewhere.close()
        for wait in tuple(self.open):
            wait.end_for(reason)

    # --- commands ---

    def plan(self, wait_for: object, seconds: float) -> "PlannedWait":
        """A wait that begins when a command is recorded; from any thread.

        Raises:
            InvalidHandler, WaitsForItself, DeadlockError: See `AwaitedHandlers`.
        """
        targets = self.awaited.targets(wait_for)
        return PlannedWait(self, targets, time_left(seconds), self.awaited.check(targets))

    def begin(
        self,
        targets: Sequence[Target],
        position: int,
        stream: StreamId | None,
        done: Handled,
        *,
        seconds: float,
        is_new: bool,
    ) -> None:
        """Call ``done`` when all ``targets`` have handled the events of a command, or one cannot in time.

        Args:
            targets: The handlers.
            position: Of its last event.
            stream: Of its aggregate; ``None`` for an event that has none.
            done: Called once, on the event loop.
            seconds: How long to wait.
            is_new: Whether the events were recorded just now, so that none can be among dead letters before.
        """

        def start() -> None:
            wait = _Wait(self, position, seconds, done)
            self._start(wait, self._parts(targets, position, stream, is_new=is_new))

        if not self._on_loop(start):
            done(NotHandled([each.name for each in targets], position, "the system has stopped"))

    # --- positions ---

    async def until(self, wait_for: object, position: int | str, seconds: float) -> None:
        """See `ActorSystem.wait_for`."""
        targets = self.awaited.targets(wait_for)
        ended = self.awaited.note_waiter(self.awaited.check(targets), targets)
        try:
            deadline = self.clock.monotonic() + time_left(seconds)
            for stored in await self._places(position):
                left = max(0.0, deadline - self.clock.monotonic())
                await self._until(targets, stored, left, seconds)
        finally:
            ended()

    async def _until(
        self, targets: Sequence[Target], stored: StoredRecord, left: float, seconds: float
    ) -> None:
        arrived: asyncio.Future[NotHandled | None] = asyncio.get_running_loop().create_future()
        wait = _Wait(self, stored.position, left, lambda why: settle(arrived, why), shown_seconds=seconds)
        self._start(wait, self._parts(targets, stored.position, stored.record.stream, is_new=False))
        try:
            await arrived
        finally:
            wait.give_up()

    async def _places(self, position: int | str) -> list[StoredRecord]:
        """The records at a position, or at those of tokens.

        Raises:
            InvalidPosition: There is none, or another one.
        """
        places = positions_in(position) if isinstance(position, str) else None
        if isinstance(position, str) and places is None:
            raise InvalidPosition(position, "it is not a position token")
        if places is None:
            if not is_count(position, 1):
                raise InvalidPosition(position, "it is neither a position from 1 nor a position token")
            places = {position: ""}
        found = []
        for each, mark in places.items():
            page = await self._store.read_log(each - 1, 1) if is_position_in(each, self._store.logs) else []
            if not page or page[0].position != each:
                raise InvalidPosition(position, f"the log has no event at position {each}")
            if mark and mark_of(page[0].record.event_id) != mark:
                raise InvalidPosition(position, "it is of another store, or of a log that was replaced since")
            found.append(page[0])
        return found

    def _start(self, wait: "_Wait", parts: Parts) -> None:
        if self._closed:
            wait.end_for(self._closed)
        else:
            wait.start(parts)

    # --- parts ---

    def _parts(
        self, targets: Sequence[Target], position: int, stream: StreamId | None, *, is_new: bool
    ) -> Parts:
        """The handlers and partitions to wait for: those that are known, and what finds out the others."""
        for target in targets:
            subscriptions = target.subscriptions
            if not subscriptions:
                yield self._parts_elsewhere(target, position)
            elif not (is_new or all(each.knows_aside for each in subscriptions)):
                yield self._parts_here(target, position)
            elif len(subscriptions) == 1:
                yield Part(subscriptions[0].name, subscriptions[0], position)
            elif stream is None or target.is_by_process or self._may_build(target) or _fills(target):
                yield self._parts_here(target, position)
            else:
                shard = shard_of_key(*stream)
                its = (each for each in subscriptions if each.spec.partitions)
                for each in its:
                    if shard % each.spec.partitions == (each.partition or 0) - 1:
                        yield Part(each.name, each, position)

    def _may_build(self, target: Target) -> bool:
        return target.spec is not None and target.spec.keeps_a_view and target.name not in self._shown

    async def _parts_here(self, target: Target, position: int) -> Iterable[Part]:
        """The partitions in this process that have events of a command, after reading what must be known for that."""
        for each in target.subscriptions:
            if not each.knows_aside:
                each.aside.update(letter.position for letter in await self._store.dead_letters(each.name))
                each.knows_aside = True
        if len(target.subscriptions) == 1:
            return [Part(each.name, each, position) for each in target.subscriptions]
        events = await events_of_command(self._store, position)
        found: dict[str, Part] = {}
        for each in target.subscriptions:
            if each.log == log_of_position(position):
                its = [stored.position for stored in each.wanted(events)]
                if its:
                    found[each.name] = Part(each.name, each, its[-1])
        if self._may_build(target):  # readers get the view only when all partitions have built it
            if await is_shown_by_all(self._store, [each.name for each in target.subscriptions]):
                self._shown.add(target.name)
            else:
                _add_all(found, target)
        if _fills(target):
            _add_all(found, target)
        return found.values()

    async def _parts_elsewhere(self, target: Target, position: int) -> Iterable[Part]:
        (stored,) = await self._store.read_log(position - 1, 1)
        stream = stored.record.stream
        is_by_aggregate = stream is not None and target.spec is not None and not target.is_by_process
        shard = shard_of_key(*stream) if stream is not None and is_by_aggregate else None
        names = await self._elsewhere.names(target.name, position, shard)
        if not names:
            ours = (
                ", ".join(sorted({whole_name(each.name) for each in self._handlers.subscriptions})) or "none"
            )
            reason = f"no process has run a handler of this name; this process has {ours}"
            raise NotHandled([target.name], position, reason)
        return [Part(name, None, position) for name in names]

    # --- waiting for one part ---

    def wait_for_part(
        self, part: Part, seconds: float, done: Callable[[NotHandled | None], None]
    ) -> Callable[[], object]:
        """Wait for one handler or partition; return what gives it up."""
        if part.subscription is None:
            return self._wait_elsewhere(part, seconds, done)
        subscription, waits = part.subscription, self._handlers.router.waits
        later: list[Callable[[], object]] = []

        def arrived(arrival: Arrival) -> None:
            if arrival == "handled":
                done(None)
            elif arrival == "near a dead letter":
                self.start_task(self._tell_of_letter(part, done))
            elif arrival == "paused":
                done(NotHandled([part.name], part.position, "it is paused, until it is resumed"))
            elif arrival == "stopped" and not self._elsewhere.is_announced(part.name):
                done(NotHandled([part.name], part.position, "it was stopped"))
            else:
                later.append(self._wait_elsewhere(part, seconds, done))

        stop = waits.begin(subscription, part.position, arrived)
        return lambda: [end() for end in (stop, *later)]

    def _wait_elsewhere(
        self, part: Part, seconds: float, done: Callable[[NotHandled | None], None]
    ) -> Callable[[], object]:
        return self._elsewhere.begin(part.name, part.subscription, part.position, seconds, done)

    async def _tell_of_letter(self, part: Part, done: Callable[[NotHandled | None], None]) -> None:
        assert part.subscription is not None
        try:
            letter = await letter_among(self._store, part.subscription.aside, part.position)
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and the caller must learn of it
            done(
                NotHandled([part.name], part.position, f"its dead letters cannot be read: {describe(error)}")
            )
            return
        done(None if letter is None else EventSetAside([part.name], part.position, letter))

    def state_of(self, name: str) -> str:
        """What a handler does, for a caller whose time is over."""
        for subscription in self._handlers.subscriptions:
            if subscription.name == name and subscription.leased:
                position = self._handlers.router.checkpoint(subscription)
                return f"{name} is {subscription.state} at position {position}"
        return f"{name} runs in another process"


class _Wait:
    """One caller's wait for several parts. The first that fails ends it.

    Args:
        waiting: The waits of the system.
        position: Of the last event.
        seconds: How long to wait.
        done: Called at the end.
        shown_seconds: What the error says, if the caller began earlier.
    """

    def __init__(
        self,
        waiting: HandlerWaiting,
        position: int,
        seconds: float,
        done: Handled,
        *,
        shown_seconds: float | None = None,
    ) -> None:
        self._waiting = waiting
        self._position = position
        self._seconds = seconds
        self._shown_seconds = seconds if shown_seconds is None else shown_seconds
        self._done: Handled | None = done
        self._open: dict[str, Callable[[], object]] = {}
        self._unknown = 0  # lookups under way
        self._timer: Timer | None = None
        self._deadline = waiting.clock.monotonic() + seconds

    def start(self, parts: Parts) -> None:
        """Wait for ``parts``."""
        self._waiting.open.add(self)
        self._unknown += 1
        for part in parts:
            if isinstance(part, Part):
                self._wait_for(part)
            else:
                self._unknown += 1
                self._waiting.start_task(self._look_up(part))
        self._unknown -= 1
        self._check()
        if self._done is not None:
            self._timer = self._waiting.clock.call_later(self._seconds, self._late)

    async def _look_up(self, finding: Coroutine[Any, Any, Iterable[Part]]) -> None:
        try:
            for part in await finding:
                self._wait_for(part)
        except NotHandled as why:
            self._end(why)
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and the caller must learn of it
            self._end(NotHandled(["the handlers"], self._position, f"the store failed: {describe(error)}"))
        self._unknown -= 1
        self._check()

    def _wait_for(self, part: Part) -> None:
        if self._done is None or part.name in self._open:
            return
        self._open[part.name] = lambda: None
        left = max(0.0, self._deadline - self._waiting.clock.monotonic())
        stop = self._waiting.wait_for_part(part, left, lambda why: self._arrived(part.name, why))
        if part.name in self._open:
            self._open[part.name] = stop

    def _arrived(self, name: str, why: NotHandled | None) -> None:
        self._open.pop(name, None)
        if why is not None:
            self._end(why)
        else:
            self._check()

    def _check(self) -> None:
        if not self._open and not self._unknown:
            self._end(None)

    def _late(self) -> None:
        names = [*self._open] or ["a handler that is looked up"]
        doing = "; ".join(map(self._waiting.state_of, self._open)) or "the store is slow"
        self._end(WaitTimeout(names, self._position, self._shown_seconds, doing))

    def _end(self, why: NotHandled | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.give_up()
            done(why)

    def end_for(self, reason: str) -> None:
        """End the wait because of the system."""
        self._end(NotHandled([*self._open] or ["the handlers"], self._position, reason))

    def give_up(self) -> None:
        """Wait no longer."""
        self._done = None
        self._waiting.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for stop in self._open.values():
            stop()
        self._open.clear()


class PlannedWait:
    """A wait for handlers that begins when a command is recorded.

    Attributes:
        seconds: How long the handlers are waited for.
    """

    def __init__(
        self, waiting: HandlerWaiting, targets: tuple[Target, ...], seconds: float, waiter: str | None
    ) -> None:
        self.seconds = seconds
        self._waiting = waiting
        self._targets = targets
        self._waiter = waiter

    def after(self, reply: CommandReply[R], stream: StreamId) -> CommandReply[R]:
        """``reply``, set once the handlers have handled the events of its command, which was not sent yet."""
        return HandledReply(
            reply,
            stream,
            self._waiting.awaited.stand_in(self._targets),
            seconds=self.seconds,
            begin=self._begin,
            ended=self._waiting.awaited.note_waiter(self._waiter, self._targets),
        )

    def _begin(self, position: int, stream: StreamId, done: Handled, *, is_new: bool) -> None:
        self._waiting.begin(self._targets, position, stream, done, seconds=self.seconds, is_new=is_new)


def _fills(target: Target) -> bool:
    """Whether a partition in this process still fills the tables of a read model, which are shown as a whole."""
    return any(not each.is_shown and each.spec.keeps_progress for each in target.subscriptions)


def _add_all(found: dict[str, Part], target: Target) -> None:
    """Wait for all partitions, those without an event of the command too: until readers get what they write."""
    for each in target.subscriptions:
        found.setdefault(each.name, Part(each.name, each, each.log_start))
