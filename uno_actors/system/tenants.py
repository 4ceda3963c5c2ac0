"""Many tenants in one program: a system for each, with a store of its own, running while it is used."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from uno_actors.backoff import Backoff
from uno_actors.clock import Clock, SystemClock, Timer, now_by
from uno_actors.config.reader import Config, load
from uno_actors.errors import (
    CallerError,
    InvalidTenant,
    SupervisorGaveUp,
    SystemNotRunning,
    TenantsInUse,
    as_error,
    describe,
)
from uno_actors.logs import get_logger
from uno_actors.quantities import check_count, check_duration
from uno_actors.store_urls import path_in
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin
from uno_actors.tenants import (
    IDLE_AFTER,
    MAX_OPEN,
    check_known,
    check_template,
    check_tenant,
    tenants_on_disk,
)

VISITS = 4
"""Tenants that are started at once only for their handlers to catch up."""
VISIT_FOR = 30.0
"""Seconds after which a tenant whose handlers have not caught up lets others have its turn; it runs on meanwhile."""
LOOK_AGAIN = 0.05
"""Seconds between two looks at whether the handlers of a tenant have caught up."""
VISIT_AFTER = 1.0
"""Seconds without use after which a tenant makes room for one whose handlers have work left."""
AGAIN = Backoff(initial=0.5, max=60.0)
"""Time until a tenant in ``keep`` is started again after its supervisors gave up, or after it did not start."""

MakeSystem = Callable[[str, str], ActorSystem]
"""Makes the system of a tenant: ``make_system(store, tenant)`` returns ``ActorSystem(store, tenant=tenant, ...)``."""


@dataclass(frozen=True, slots=True)
class TenantsStatistics:
    """Counters of a `Tenants` since its start.

    Attributes:
        open: Tenants whose systems run now, or start or stop.
        in_use: Those that callers use now.
        to_visit: Tenants to be started for their handlers to catch up.
        started: Starts of systems.
        stopped: Stops of systems, because they were idle, others needed their place, or their supervisors gave up.
        failed: Starts that failed.
        refused: Uses refused because too many tenants were in use.
    """

    open: int
    in_use: int
    to_visit: int
    started: int
    stopped: int
    failed: int
    refused: int


class _Tenant:
    """The system of one tenant, while it is started, runs and stops."""

    def __init__(self, name: str, system: ActorSystem, *, is_kept: bool, now: float) -> None:
        self.name, self.system, self.is_kept = name, system, is_kept
        self.users = 0
        self.used_at = now
        self.is_stopping = False
        self.is_visited = False  # so that its handlers catch up
        self.is_used = False
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self.started.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.gone = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether it has started, and does not stop."""
        done = self.started.done() and not self.started.cancelled() and self.started.exception() is None
        return done and not self.is_stopping

    @property
    def may_stop(self) -> bool:
        """Whether it can make room for another."""
        return self.runs and not self.users and not self.is_kept


class Tenants:
    """The systems of many tenants: each has a store of its own, and runs while it is used and its handlers have work.

    A tenant is started at its first use. Those that are not used stop when they are idle, or when others need their
    place. At the start each known tenant is started once, a few at a time, so that its handlers handle what was
    recorded before.

        async with Tenants("lmdb:/var/lib/bank/{tenant}", make_system) as tenants:
            async with tenants.use("acme") as system:
                await system.aggregate(Account, "alice").ask(Deposit(amount=10))

    Args:
        store: URL of the stores, with ``{tenant}`` in the path or in the name of the database.
        make_system: Makes the system of a tenant: ``make_system(store, tenant)`` returns
            ``ActorSystem(store, tenant=tenant, ...)``.
        names: The tenants that exist; a set that changes may be given. A store is made at the first use of a tenant.
            Default is those that have a store on disk: a new one begins with `create`.
        keep: The tenants that always run, or ``all``: for handlers and schedules that nothing else would start.
        max_open: Maximum number of tenants that run at once.
        idle_after: Seconds without use after which a tenant stops, once its handlers have handled every event and
            nothing is scheduled.
        clock: Measures these times.

    Raises:
        InvalidStoreUrl: Tenants would share a store.
        InvalidTenant: A name cannot be that of a tenant.
        ValueError: More tenants are to be kept than may be open; or ``names`` are missing for stores that are not on
            disk.
    """

    def __init__(
        self,
        store: str,
        make_system: MakeSystem,
        *,
        names: Collection[str] | None = None,
        keep: Collection[str] | Literal["all"] = (),
        max_open: int = MAX_OPEN,
        idle_after: float = IDLE_AFTER,
        clock: Clock | None = None,
    ) -> None:
        check_template(store)
        check_count("max_open", max_open, 1)
        check_duration("idle_after", idle_after)
        for name in (*(names or ()), *(() if keep == "all" else keep)):
            check_tenant(name)
        if keep != "all" and len(keep) > max_open:
            raise ValueError(
                f"{len(keep)} tenants are to be kept, and at most {max_open} may be open (max_open)"
            )
        if names is None and path_in(store) is None:
            raise ValueError("the stores are not on disk, so their tenants cannot be found: give names=[...]")
        self._template, self._make, self._names = store, make_system, names
        self._keep, self._max_open, self._idle_after = keep, max_open, idle_after
        self._clock: Clock = clock or SystemClock()
        self._open: dict[str, _Tenant] = {}
        self._room = asyncio.Semaphore(max_open)
        self._to_visit: deque[str] = deque()
        self._news = asyncio.Event()  # there may be a tenant to visit, or room for one
        self._tasks: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._timers: set[Timer] = set()
        self._due: dict[str, Timer] = {}  # of the tenants that have stopped with something scheduled
        self._state: Literal["not started", "running", "stopped"] = "not started"
        self._started = self._stopped = self._failed = self._refused = 0
        self._has_stopped = asyncio.Event()
        self._log = get_logger(actor="tenants")

    @classmethod
    def from_config(cls, config: Config | str | os.PathLike[str], **options: Any) -> Self:
        """The tenants of a configuration file, whose ``[tenants]`` has the options.

        Args:
            config: Path of the file, or the result of `uno_actors.config.reader.load`.
            **options: Options of the constructor, which override those of the file; and of `ActorSystem`, such as
                ``cluster`` or ``dependency_overrides``, for each system.

        Raises:
            InvalidConfig: The file is invalid.
            InvalidStoreUrl: Its store is not that of tenants.
        """
        if not isinstance(config, Config):
            config = load(config)
        own: dict[str, Any] = {}
        for option in ("names", "keep", "max_open", "idle_after"):
            if option in options:
                own[option] = options.pop(option)
        if "clock" in options:
            own["clock"] = options["clock"]

        def make_system(_store: str, tenant: str) -> ActorSystem:
            return ActorSystem._of(config, tenant=tenant, **options)

        found = {} if config.tenants is None else config.tenants.options()
        return cls(config.system.url, make_system, **{**found, **own})

    # --- use ---

    @asynccontextmanager
    async def use(self, tenant: str) -> AsyncIterator[ActorSystem]:
        """The running system of a tenant, which does not stop inside the ``async with`` block.

        Args:
            tenant: Its name.

        Raises:
            InvalidTenant: No tenant can have this name.
            UnknownTenant: There is no such tenant.
            TenantsInUse: So many tenants are in use that it cannot be started now.
            SystemNotRunning: The tenants were not started, or have stopped.
            Exception: What the start of its system raised.
        """
        check_tenant(tenant)
        entry = await self._running(tenant)
        entry.users += 1
        entry.is_used = True
        try:
            yield entry.system
        finally:
            entry.users -= 1
            entry.used_at = self._clock.monotonic()
            self._news.set()

    async def create(self, tenant: str) -> None:
        """Make the store of a new tenant, and start its system. Without effect if it exists.

        Raises:
            InvalidTenant, TenantsInUse, Exception: As for `use`.
            UnknownTenant: ``names`` were given, and it is not among them.
        """
        check_tenant(tenant)
        if self._names is not None:
            self._check_known(tenant)
        await self._running(tenant, create=True)

    def names(self) -> list[str]:
        """The tenants that exist, sorted."""
        if self._names is not None:
            return sorted(self._names)
        return tenants_on_disk(self._template) or []

    def statistics(self) -> TenantsStatistics:
        """The counters."""
        in_use = sum(bool(each.users) for each in self._open.values())
        counts = self._started, self._stopped, self._failed, self._refused
        return TenantsStatistics(len(self._open), in_use, len(self._to_visit), *counts)

    def systems(self) -> dict[str, ActorSystem]:
        """The systems that run now, by tenant."""
        return {name: each.system for name, each in sorted(self._open.items()) if each.runs}

    # --- start and stop ---

    async def start(self) -> None:
        """Start the tenants to be kept, and begin to visit the others. ``async with`` calls this for you.

        A tenant that cannot be started is logged, and tried again; the others are served.
        """
        if self._state != "not started":
            raise SystemNotRunning("tenants", f"{self._state} and cannot be started again")
        self._state = "running"
        names = self.names()
        kept = names if self._keep == "all" else [*self._keep]
        if len(kept) > self._max_open:
            self._state = "stopped"
            raise ValueError(
                f"{len(kept)} tenants are to be kept, and at most {self._max_open} may be open (max_open)"
            )
        await self._all(self._keep_running(name) for name in kept)
        self._to_visit.extend(name for name in names if name not in self._open)
        for _ in range(min(VISITS, self._max_open)):
            self._in_background(self._visit())
        self._look_later()

    async def stop(self) -> None:
        """Stop all systems, each within its own ``stop_timeout``. Idempotent."""
        if self._state == "stopped":
            await self._has_stopped.wait()
            return
        self._state = "stopped"
        for timer in self._timers:
            timer.cancel()
        for task in tuple(self._background):
            task.cancel()
        await self._all(self._stop(each) for each in tuple(self._open.values()))
        self._has_stopped.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- the systems ---

    def _check_known(self, tenant: str) -> None:
        check_known(self._template, tenant, self._names, "names=...", "Tenants.create()")

    async def _running(self, tenant: str, *, create: bool = False, is_visit: bool = False) -> _Tenant:
        """The tenant with a running system, started if it is not."""
        while True:
            if self._state != "running":
                raise SystemNotRunning("tenants", self._state)
            entry = self._open.get(tenant)
            if entry is not None and entry.is_stopping:
                await entry.gone.wait()
                continue
            if entry is None:
                if not create:
                    self._check_known(tenant)
                try:
                    entry = self._add(tenant, create=create, is_visit=is_visit)
                except TenantsInUse:
                    visited = [each.started for each in self._open.values() if each.is_visited]
                    starting = [started for started in visited if not started.done()]
                    if is_visit or not starting:
                        self._refused += not is_visit
                        raise
                    await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
                    continue
            entry.used_at = self._clock.monotonic()
            entry.users += not is_visit  # so that it does not stop before the caller has it
            try:
                await asyncio.shield(entry.started)
            finally:
                entry.users -= not is_visit
            if not entry.is_stopping:
                return entry

    def _add(self, tenant: str, *, create: bool, is_visit: bool) -> _Tenant:
        """Begin to start a tenant.

        Raises:
            TenantsInUse: There is no room, and none can be made.
        """
        self._make_room(tenant, is_visit=is_visit)
        system = self._make(self._template, tenant)
        if system.tenant != tenant:
            raise InvalidTenant(
                tenant, f"make_system returned {system!r}: return ActorSystem(store, tenant=tenant, ...)"
            )
        if self._names is None and not create:
            system._opening = {"create": False}
        is_kept = self._keep == "all" or tenant in self._keep
        entry = self._open[tenant] = _Tenant(tenant, system, is_kept=is_kept, now=self._clock.monotonic())
        entry.is_visited = is_visit
        entry.running = self._begin(self._run(entry))
        return entry

    def _make_room(self, tenant: str, *, is_visit: bool) -> None:
        """Stop the tenant that was not used for longest, if there is no room for one more.

        Each tenant that does not stop has a claim to one place, so all that wait for one get it.
        """
        if not self._is_full:
            return
        unused = self._idle(for_visit=is_visit)
        if not unused:
            raise TenantsInUse(tenant, self._max_open)
        longest = min(unused, key=lambda each: (each.is_visited, each.used_at))
        longest.is_stopping = True
        self._begin(self._stop(longest))

    async def _run(self, entry: _Tenant) -> None:
        """Run the system of a tenant until it has stopped."""
        try:
            await self._room.acquire()
            try:
                await self._serve(entry)
            finally:
                self._room.release()
        finally:
            del self._open[entry.name]
            entry.gone.set()
            if not entry.started.done():
                entry.started.set_exception(SystemNotRunning("tenants", self._state))
            self._news.set()

    async def _serve(self, entry: _Tenant) -> None:
        system, name = entry.system, entry.name
        try:
            await system.start()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a start may raise anything
            self._failed += 1
            entry.started.set_exception(as_error(error, f"starting tenant {name!r}"))
            return
        self._started += 1
        entry.started.set_result(None)
        try:
            await system.wait_stopped()
        except SupervisorGaveUp as error:
            self._log.error("supervisors of a tenant gave up", tenant=name, error=str(error))
            if entry.is_kept and self._state == "running":
                self._in_background(self._keep_running(name, 1))
        except asyncio.CancelledError:  # the tenants stop
            await system.stop()
        finally:
            self._stopped += 1

    async def _stop(self, entry: _Tenant) -> None:
        """Stop a tenant. If its handlers have work left, it is visited later."""
        entry.is_stopping = True
        if self._state == "running":
            if not await self._is_settled(entry):
                self._visit_later(entry.name)
            elif (due := self._next_due(entry)) is not None:
                self._visit_in(entry.name, (due - now_by(self._clock)).total_seconds())
        if entry.started.done():
            await entry.system.stop()
        elif entry.running is not None:
            entry.running.cancel()
        await entry.gone.wait()

    async def _is_settled(self, entry: _Tenant) -> bool:
        runtime = entry.system._runtime
        if runtime is None or entry.system._state != "running":
            return True
        try:
            return await runtime.is_settled()
        except Exception:  # noqa: BLE001 - any store may raise anything
            return False

    @staticmethod
    def _next_due(entry: _Tenant) -> datetime | None:
        """When the system of a tenant is to send the next scheduled command."""
        runtime = entry.system._runtime
        return None if runtime is None else runtime.scheduler.next_due

    # --- in the background ---

    def _visit_in(self, name: str, seconds: float) -> None:
        """Visit a tenant when something is due there; this replaces what was said when it stopped before."""
        if (earlier := self._due.get(name)) is not None:
            earlier.cancel()
            self._timers.discard(earlier)
        self._due[name] = self._later(max(0.0, seconds), lambda: self._visit_later(name))

    def _visit_later(self, name: str) -> None:
        if name not in self._to_visit:
            self._to_visit.append(name)
        self._news.set()

    async def _keep_running(self, name: str, attempt: int = 0) -> None:
        """Start a tenant that is to be kept; again later if it cannot be started now."""
        delay = AGAIN.delay(attempt, 0.5) if attempt else 0.0
        if delay:
            await self._sleep(delay)
        try:
            await self._running(name, create=True)
        except Exception as error:  # noqa: BLE001 - a start may raise anything
            if self._state == "running":
                self._log.error("tenant cannot be started yet", tenant=name, error=describe(error))
                self._in_background(self._keep_running(name, attempt + 1))

    async def _visit(self) -> None:
        """Start tenants one after the other, each until its handlers have handled every event."""
        while True:
            while not self._to_visit or (self._is_full and not self._idle(for_visit=True)):
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(VISIT_AFTER if self._to_visit else None):
                        await self._news.wait()
            name = self._to_visit.popleft()
            if name in self._open:
                continue
            try:
                entry = await self._running(name, is_visit=True)
            except TenantsInUse:
                self._to_visit.append(name)
                await asyncio.sleep(LOOK_AGAIN)
                continue
            except Exception as error:  # noqa: BLE001 - a start may raise anything
                if self._state == "running":
                    self._log.error("tenant cannot be started", tenant=name, error=describe(error))
                    if not isinstance(error, CallerError):  # its handlers may still have work
                        self._visit_in(name, AGAIN.max)
                continue
            until = self._clock.monotonic() + VISIT_FOR
            while entry.runs and not await self._is_settled(entry):
                if self._to_visit and self._clock.monotonic() >= until:
                    break  # its handlers may wait for something that is away
                await asyncio.sleep(LOOK_AGAIN)
            entry.is_visited = False
            self._news.set()

    @property
    def _is_full(self) -> bool:
        return sum(not each.is_stopping for each in self._open.values()) >= self._max_open

    def _idle(self, *, for_visit: bool = False) -> Sequence[_Tenant]:
        """The tenants that may stop; for a visit not those that are visited themselves or were used a moment ago."""
        before = self._clock.monotonic() - VISIT_AFTER
        return [
            each
            for each in self._open.values()
            if each.may_stop
            and not (for_visit and (each.is_visited or (each.is_used and each.used_at > before)))
        ]

    def _look_later(self) -> None:
        self._later(
            min(max(self._idle_after / 4, LOOK_AGAIN), 30.0), lambda: self._in_background(self._look())
        )

    async def _look(self) -> None:
        """Stop the tenants that are idle."""
        now = self._clock.monotonic()
        for each in self._idle():
            if now - each.used_at < self._idle_after or self._next_due(each) is not None:
                continue  # it would miss what is scheduled
            if await self._is_settled(each) and each.may_stop:
                self._begin(self._stop(each))
        self._look_later()

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._later(seconds, over.set)
        await over.wait()

    def _later(self, seconds: float, call: Callable[[], object]) -> Timer:
        def now() -> None:
            self._timers.discard(timer)
            call()

        timer = self._clock.call_later(seconds, now)
        self._timers.add(timer)
        return timer

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = begin(asyncio.get_running_loop(), coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _all(self, coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
        tasks = [self._begin(each) for each in coroutines]
        if tasks:
            await asyncio.wait(tasks)

    def _in_background(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self._begin(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def __repr__(self) -> str:
        return f"<Tenants {len(self._open)} open ({self._state})>"
