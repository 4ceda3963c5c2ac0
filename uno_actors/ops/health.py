"""Whether a system lives and is ready for traffic, with the reasons against it.

Liveness and readiness are two questions. A process that does not live is cured by a restart; so liveness never asks the
store: a restart of all processes at once does not repair a database. A process that is not ready gets no traffic until
it is ready again.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from uno_actors.errors import InvalidNumber, SystemNotRunning, describe, shown
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.lag import Lag, lag_at
from uno_actors.handlers.partitions import named, whole_name
from uno_actors.handlers.subscription import Subscription
from uno_actors.ops.asking import Question, Unanswered, on_loop_of
from uno_actors.printable import printable
from uno_actors.quantities import check_count, check_duration
from uno_actors.store.port import EventStore
from uno_actors.store_urls import without_secrets
from uno_actors.system.runtime import Runtime
from uno_actors.system.system import ActorSystem

Check = Literal["system", "loop", "supervisor", "store", "handler", "lease"]
"""What was checked: the state of the system, its event loop, a supervisor, the store, how far a handler is behind, and
whether a process runs it."""


@dataclass(frozen=True, slots=True)
class MaxLag:
    """How far a watched handler may be behind the end of the log.

    Args:
        events: Log positions, including events that the handler does not subscribe to; ``None`` for no limit.
        seconds: Age of the next event that it must handle; ``None`` for no limit.

    Raises:
        InvalidNumber: A limit is not a number that is allowed, or there is none.
    """

    events: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_count("events", self.events, none=True)
        check_duration("seconds", self.seconds, zero=True, none=True)
        if self.events is None and self.seconds is None:
            raise InvalidNumber("events or seconds", "given: a watched handler has a limit", None)

    def exceeded_by(self, lag: Lag) -> str | None:
        """What is exceeded and by how much, in words; ``None`` if nothing is."""
        if self.events is not None and lag.events > self.events:
            return f"{lag.events:,} events behind the end of the log; at most {self.events:,} are allowed"
        if self.seconds is not None and lag.seconds > self.seconds:
            return f"{lag.seconds:.3g} s behind the end of the log; at most {self.seconds:g} s are allowed"
        return None


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a system is not ready.

    Attributes:
        check: See `Check`.
        name: Of the supervisor or handler, the system or its store.
        text: For people: what is wrong, and the remedy where there is one. On one line, without control characters.
        fatal: Whether only a restart of the process helps.
    """

    check: Check
    name: str
    text: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The outcome of a check.

    Attributes:
        reasons: The reasons against readiness, the fatal ones first; empty if the system is ready.
    """

    reasons: tuple[Reason, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the process is worth keeping."""
        return not any(reason.fatal for reason in self.reasons)

    @property
    def ready(self) -> bool:
        """Whether the system can serve traffic now."""
        return not self.reasons


class Health:
    """Checks whether a system lives and is ready. Use one for each system; it works from any event loop.

    A system is ready if it runs, its loop turns, no supervisor has given up, its store reads and writes in time, a
    process runs each of its handlers, and no watched handler is further behind the end of the log than it may be.

    Args:
        system: The system, started or not.
        watch: The limit for every handler of the system, or limits by handler name. A name may be that of a handler
            that other processes run. Default is to watch none: a process whose handler is paused or slow still
            answers commands.
        store_within: Seconds in which the store must answer.
        loop_within: Seconds in which the loop must run a callback.
        lease_within: Seconds for which a handler may be run by no process, as while another one takes it over.

    Raises:
        InvalidNumber: A duration is not one.
        TypeError: ``watch`` is neither a `MaxLag` nor a mapping of such.
    """

    def __init__(
        self,
        system: ActorSystem,
        watch: MaxLag | Mapping[str, MaxLag] | None = None,
        *,
        store_within: float = 2.0,
        loop_within: float = 2.0,
        lease_within: float = 10.0,
    ) -> None:
        check_duration("store_within", store_within)
        check_duration("loop_within", loop_within)
        check_duration("lease_within", lease_within, zero=True)
        limits = watch.values() if isinstance(watch, Mapping) else () if watch is None else [watch]
        if not all(isinstance(limit, MaxLag) for limit in limits):
            raise TypeError(f"watch is MaxLag(...), or such limits by handler name; found {watch!r}")
        self._system = system
        self._watch_all = watch if isinstance(watch, MaxLag) else None
        self._watch = dict(watch) if isinstance(watch, Mapping) else {}
        self._store_within = store_within
        self._loop_within = loop_within
        self._lease_within = lease_within
        self._question = Question(self._ask_store, "health of the store")
        self._free_since: dict[str, float] = {}

    @property
    def system(self) -> ActorSystem:
        """The system that is checked."""
        return self._system

    async def check_live(self) -> HealthReport:
        """Check what only a restart of the process helps against: a stopped system, a loop that does not turn."""
        reason, runtime = self._of_system()
        if reason is None and runtime is not None:
            reason = await self._of_loop(runtime)
        return HealthReport((reason,) if reason is not None and reason.fatal else ())

    async def check(self) -> HealthReport:
        """Check everything. This takes at most ``loop_within`` and ``store_within`` seconds."""
        reason, runtime = self._of_system()
        if reason is None and runtime is not None:
            reason = await self._of_loop(runtime)
        if reason is not None or runtime is None:
            return HealthReport((reason,) if reason is not None else ())
        try:
            async with asyncio.timeout(self._loop_within + self._store_within):
                return HealthReport(tuple(await on_loop_of(runtime.dispatcher, self._look(runtime))))
        except TimeoutError:
            return HealthReport((self._slow_loop(),))

    # --- what can be seen from any thread ---

    def _of_system(self) -> tuple[Reason | None, Runtime | None]:
        system = self._system
        runtime, state = system._runtime, system._state
        if system.failure is not None:
            return self._reason("system", f"it has given up: {describe(system.failure)}", fatal=True), runtime
        if state == "stopped":
            return self._reason("system", "it has stopped", fatal=True), None
        if state != "running" or runtime is None:
            return self._reason("system", f"it is {state}"), None
        try:
            system._running()
        except SystemNotRunning as error:  # of the parent of this process
            return self._reason("system", str(error), fatal=True), None
        return None, runtime

    def _reason(self, check: Check, text: str, name: str | None = None, *, fatal: bool = False) -> Reason:
        shown = printable(without_secrets(text, self._system._url or ""))
        return Reason(check, printable(name or self._system.name), shown, fatal)

    async def _of_loop(self, runtime: Runtime) -> Reason | None:
        """Let the system's loop run a callback, from this loop or another one."""
        here = asyncio.get_running_loop()
        turned = asyncio.Event()
        begun = monotonic()
        posted = runtime.dispatcher.post(lambda: here.call_soon_threadsafe(turned.set))
        if posted:
            try:
                async with asyncio.timeout(self._loop_within):
                    await turned.wait()
            except TimeoutError:
                posted = turned.is_set()
        seconds = monotonic() - begun
        if not posted and seconds < self._loop_within:
            return self._reason("loop", "its event loop is closed", fatal=True)
        if seconds > self._loop_within:
            return self._slow_loop()
        return None

    def _slow_loop(self) -> Reason:
        limit = f"its event loop has not run a callback within {self._loop_within:g} s"
        return self._reason("loop", f"{limit}; the logs name the code that holds it", fatal=True)

    # --- on the system's loop ---

    async def _look(self, runtime: Runtime) -> list[Reason]:
        found = [
            self._reason("supervisor", f"it gave up: {each.reason}", name)
            for name, each in runtime.tree.statistics().items()
            if each.state == "gave up"
        ]
        try:
            return [*found, *await self._question.answer(self._store_within)]
        except Unanswered as silence:
            text = f"it has not answered for {silence.seconds:.3g} s: {shown(self._system.store, repr)}"
            return [*found, self._reason("store", text)]

    async def _ask_store(self) -> list[Reason]:
        """All that the store must answer: it writes nothing, reads its end, and the places of watched handlers."""
        runtime, store = self._system._runtime, self._system.store
        assert runtime is not None
        try:
            await store.save_progress({})  # its writer answers
            await store.last_positions()
            return [*await self._of_leases(runtime, store), *await self._of_lags(runtime, store)]
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            return [self._reason("store", describe(error))]

    async def _of_leases(self, runtime: Runtime, store: EventStore) -> list[Reason]:
        """The handlers that no process runs."""
        known = {each.name: each.leased for each in runtime.handlers.subscriptions}
        others = [name for name, leased in known.items() if not leased]
        if elsewhere := self._elsewhere(known):
            recorded = await store.checkpoints()
            others += [each for name in elsewhere for each in named(name, recorded) or [name]]
        leased = await store.leased_among(others) if others else set()
        found, now = [], monotonic()
        for name in others:
            if name in leased:
                self._free_since.pop(name, None)
                continue
            seconds = now - self._free_since.setdefault(name, now)
            if seconds >= self._lease_within:
                text = f"no process has run this handler for {seconds:.3g} s"
                found.append(self._reason("lease", text, name))
        for name in self._free_since.keys() - set(others):
            del self._free_since[name]
        return found

    def _elsewhere(self, known: Iterable[str]) -> list[str]:
        """The watched handlers that the system does not have."""
        return [name for name in self._watch if not named(name, known)]

    def _limit(self, handler: str) -> MaxLag | None:
        return self._watch.get(whole_name(handler), self._watch.get(handler, self._watch_all))

    async def _of_lags(self, runtime: Runtime, store: EventStore) -> list[Reason]:
        """The watched handlers that are too far behind, or stopped."""
        found: list[Reason | None] = []
        standby: list[str] = []
        subscriptions = tuple(runtime.handlers.subscriptions)
        for each in subscriptions:
            if (limit := self._limit(each.name)) is None:
                continue
            if each.leased:
                found.append(await self._of_ours(runtime, store, each, limit))
            else:
                standby.append(each.name)
        elsewhere = self._elsewhere([each.name for each in subscriptions])
        if standby or elsewhere:
            positions = await HandlerControl(store).positions()
            names = [*standby, *(each for name in elsewhere for each in named(name, positions))]
            found += [await self._of_others(store, name, positions.get(name, 0)) for name in names]
        return [reason for reason in found if reason is not None]

    async def _of_ours(
        self, runtime: Runtime, store: EventStore, subscription: Subscription, limit: MaxLag
    ) -> Reason | None:
        """A watched handler that this process runs."""
        now = subscription.statistics(runtime.handlers.dispatched(subscription))
        if now.state == "stopped":
            text = "it is stopped: start it again, or restart the process"
            return self._reason("handler", text, subscription.name)
        lag = await lag_at(store, now.position, await store.last_positions(), subscription.wanted)
        if (excess := limit.exceeded_by(lag)) is None:
            return None
        return self._reason("handler", f"it is {now.state} and {excess}", subscription.name)

    async def _of_others(self, store: EventStore, name: str, position: int) -> Reason | None:
        """A watched handler that another process runs, by its checkpoint."""
        limit, ends = self._limit(name), await store.last_positions()
        if limit is None:
            return None
        if (excess := limit.exceeded_by(await lag_at(store, position, ends))) is None:
            return None
        return self._reason("handler", f"another process runs it, and it is {excess}", name)
