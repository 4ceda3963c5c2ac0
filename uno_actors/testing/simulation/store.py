"""An event store on a simulated disk: each process of a run opens it for itself."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import OutcomeUnknown, StoreFull, StoreUnavailable, UnoError
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.conditions import Condition
from uno_actors.store.limits import check_lease, check_progress
from uno_actors.store.membership import Member, Membership
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import PAGE, Append, Appended, DeadLetter, Snapshot, StoredRecord, ViewChange
from uno_actors.tasks import begin, end_of
from uno_actors.testing.simulation.core import Call, Core
from uno_actors.testing.simulation.disk import LONGEST_READ, Disk, DiskFull, SyncFailed
from uno_actors.testing.simulation.frames import packed, unpacked
from uno_actors.testing.simulation.loop import SimulatedLoop, across

T = TypeVar("T")

LONGEST_NOTICE = 0.02
"""Maximum seconds until other processes notice a commit, a member or a free lease."""


class Shelf:
    """A disk, and what the processes that have opened it see.

    What is seen follows from the whole frames on the disk alone, so after a crash it is read from there again.

    Args:
        core: Of the run.
        name: Of the disk.
        event_registry: Finds the classes of recorded events.

    Attributes:
        disk: The disk.
        opened: The stores that processes have opened, in their order.
        commits: The positions of each append, in the order of the log.
        result: Of the last call that was written.
    """

    def __init__(self, core: Core, name: str, event_registry: EventRegistry) -> None:
        self.core = core
        self.name = name
        self.disk = Disk(core, name)
        self.opened: list[SimulatedStore] = []
        self.commits: list[range | tuple[int, ...]] = []
        self.result: Any = None
        self.members: dict[str, tuple[Member, float, SimulatedStore]] = {}
        self.leases: dict[str, SimulatedStore] = {}
        self.chance = core.source(f"shelf {name}")
        self._registry = event_registry
        self._seen = 0
        self._writer: SimulatedStore | None = None
        self._queue: deque[tuple[SimulatedStore, asyncio.Future[None]]] = deque()
        self.state = open_store("memory:", event_registry)

    @property
    def records(self) -> tuple[Record, ...]:
        """What is recorded, in the order of the log."""
        return tuple(self.state.records)  # type: ignore[attr-defined]

    # --- one writer at a time ---

    async def acquire(self, store: "SimulatedStore") -> None:
        """Wait until no other writer writes."""
        if self._writer is None:
            self._writer = store
            return
        future = store.loop.create_future()
        self._queue.append((store, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Let the next writer write."""
        self._writer = None
        while self._queue:
            store, future = self._queue.popleft()
            if not store.loop.is_dead and not future.done():
                self._writer = store
                future.set_result(None)
                return

    # --- what is on the disk ---

    def look(self) -> None:
        """See the frames that were written since the last time."""
        grown = False
        for end, frame in self.disk.frames(self._seen):
            self._seen = end
            grown = self._apply(*unpacked(frame)) or grown
        if grown:
            for store in tuple(self.opened):
                store.notice()

    def recover(self) -> None:
        """After a crash: forget half a frame at the end, and see what is whole."""
        end = self._seen
        for place_of_end, _ in self.disk.frames(self._seen):
            end = place_of_end
        del self.disk.data[end:]
        self.disk.synced = len(self.disk.data)
        self.look()

    def restore(self, records: Iterable[Record]) -> None:
        """Have records on the disk, as if they had been appended, those of one command together.

        Raises:
            UnoError: They do not follow each other.
        """
        for _, together in groupby(records, lambda record: (record.stream, record.causation_id)):
            self.disk.put(packed(["commit", [[Append(tuple(together))]]]))
            self.look()
            for outcome in self.result:
                if isinstance(outcome, UnoError):
                    raise outcome

    def killed(self, store: "SimulatedStore") -> None:
        """The process that has opened ``store`` was killed."""
        if store in self.opened:
            self.opened.remove(store)
        store.end_of_process()
        self._queue = deque(waiting for waiting in self._queue if waiting[0] is not store)
        for name in [name for name, holder in self.leases.items() if holder is store]:
            del self.leases[name]
        if self._writer is store:
            self.recover()
            self.release()

    def power_failure(self) -> int:
        """All processes were killed, and the machine; return how many bytes the disk has lost."""
        lost = self.disk.power_failure()
        self._writer, self._seen = None, 0
        self._queue.clear()
        self.commits.clear()
        self.state = open_store("memory:", self._registry)
        self.recover()
        return lost

    def _apply(self, name: str, arguments: Sequence[Any]) -> bool:
        """Make a call that was written; return whether the log has grown."""
        self.result = _now(getattr(self.state, name)(*arguments))
        if name != "commit":
            return False
        accepted = [outcome for outcome in self.result if isinstance(outcome, Appended)]
        self.commits += [outcome.positions for outcome in accepted if outcome.records]
        return bool(accepted)


class SimulatedStore(EventStore):
    """A `Shelf` as one process has opened it.

    Args:
        shelf: What it opens.
        loop: Of the process.
        event_registry: Finds the classes of recorded events.
    """

    checks_conditions = True

    def __init__(self, shelf: Shelf, loop: SimulatedLoop, event_registry: EventRegistry) -> None:
        super().__init__(event_registry)
        self.shelf = shelf
        self.loop = loop
        self.membership_here: _Membership | None = None
        self._closed = False
        self._awaited: dict[asyncio.Future[Any], None] = {}
        if not shelf.opened:
            shelf.recover()
        shelf.opened.append(self)

    # --- writing ---

    @override
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        if all(request.condition is None for request in requests):
            return await self._commit(requests)
        return [
            outcome for request in requests for outcome in await self._commit([request], request.condition)
        ]

    async def _commit(
        self, requests: Sequence[Append], condition: Condition | None = None
    ) -> list[Appended | UnoError]:
        """Append ``requests``, unless an event stands against ``condition`` when it is their turn to be written."""
        written = [request._replace(condition=None) for request in requests]
        outcomes: list[Appended | UnoError] | UnoError = await self._write(
            "commit", written, condition=condition
        )
        if isinstance(outcomes, UnoError):
            return [outcomes] * len(requests)
        accepted = [each for each in outcomes if isinstance(each, Appended)]
        for each in accepted:
            events = ", ".join(
                f"{position} {record.event_type} of {record.stream or 'no aggregate'}"
                for position, record in zip(each.positions, each.records, strict=True)
            )
            self.shelf.core.tell(self.loop.name, "log", f"recorded {events}")
        return outcomes

    async def _write(self, name: str, *arguments: Any, condition: Condition | None = None) -> Any:
        """Write a call to the disk and make it: its result, or the error if that is not certain.

        It is finished even if the caller is cancelled. It is work of the process that has opened the store, whichever
        calls it.
        """

        async def work() -> Any:
            self._check_open()
            await self.shelf.acquire(self)
            try:
                (held,) = _now(self.shelf.state.commit([Append((), condition=condition)]))
                if isinstance(held, UnoError):
                    return held
                return await self._write_alone(packed([name, arguments]))
            finally:
                self.shelf.release()

        self._check_open()
        here = self.shelf.core.place
        if here is self.loop or not isinstance(here, SimulatedLoop):
            return await end_of(begin(self.loop, work()), "a write")
        future = across(here, self.loop, work())
        self._awaited[future] = None
        try:
            return await future
        finally:
            self._awaited.pop(future, None)

    async def _write_alone(self, frame: bytes) -> Any:
        disk = self.shelf.disk
        begin_at = len(disk.data)
        try:
            await disk.write(frame)
            await disk.sync()
        except DiskFull:
            return StoreFull(self.shelf.name, "the simulated disk has no room")
        except SyncFailed:
            if disk.synced < len(disk.data):
                del disk.data[begin_at:]
            self.shelf.look()
            return OutcomeUnknown(self.shelf.name, "the simulated disk failed to sync")
        self.shelf.look()
        return self.shelf.result

    async def _change(self, name: str, *arguments: Any) -> Any:
        found = await self._write(name, *arguments)
        if isinstance(found, OutcomeUnknown):
            raise StoreUnavailable(self.shelf.name, str(found))
        if isinstance(found, UnoError):
            raise found
        return found

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._check_open()
        check_progress(checkpoints, dead_letters, views, dropped)
        await self._change("save_progress", dict(checkpoints), [*dead_letters], [*views], [*dropped])
        for name, position in checkpoints.items():
            self.shelf.core.tell(self.loop.name, "handler", f"{name} has handled up to {position}")

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._change("save_snapshots", [*snapshots])

    @override
    async def drop_view(self, view: str) -> None:
        await self._change("drop_view", view)

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        return bool(await self._change("drop_dead_letter", handler, position))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        return int(await self._change("drop_snapshots", aggregate_type))

    @override
    async def drop_snapshot(self, stream: StreamId) -> bool:
        return bool(await self._change("drop_snapshot", stream))

    @override
    async def drop_progress(self, handler: str) -> bool:
        return bool(await self._change("drop_progress", handler))

    # --- reading ---

    @override
    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        return await self._read(lambda state: state._find(condition))

    async def _read(self, read: Callable[[EventStore], Awaitable[T]]) -> T:
        self._check_open()
        await self.shelf.disk.pause(LONGEST_READ)
        self._check_open()
        return _now(read(self.shelf.state))

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        return await self._read(lambda state: state.read_stream(stream, after_version, limit))

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        return await self._read(lambda state: state.read_log(after, limit))

    @override
    async def last_version(self, stream: StreamId) -> int:
        return await self._read(lambda state: state.last_version(stream))

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        return await self._read(lambda state: state.aggregate_types(aggregate_id))

    @override
    async def last_position(self) -> int:
        return await self._read(lambda state: state.last_position())

    @override
    async def checkpoints(self) -> dict[str, int]:
        return await self._read(lambda state: state.checkpoints())

    @override
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        return await self._read(lambda state: state.read_view(view, start, end, limit))

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        return await self._read(lambda state: state.dead_letters(handler))

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        return await self._read(lambda state: state.read_snapshot(stream))

    # --- other processes ---

    def notice(self) -> None:
        """The log has grown: this process sees it at once, if it has written, others a little later."""
        core = self.shelf.core
        if core.place is self.loop:
            self._committed()
            return
        core.at(
            core.now + self.shelf.chance.random() ** 2 * LONGEST_NOTICE,
            self.loop,
            Call(self._committed),
            "commit",
        )

    @override
    async def lease(self, name: str) -> Lease | None:
        self._check_open()
        check_lease(name)
        await self.shelf.disk.pause(LONGEST_READ)
        if name in self.shelf.leases:
            return None
        self.shelf.leases[name] = self
        return _Held(self, name)

    @override
    def membership(self, seconds: float, clock: Clock) -> Membership:
        return _Membership(self, seconds)

    @override
    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end_subscriptions()
            self.shelf.killed(self)

    def end_of_process(self) -> None:
        """Other processes of the run wait no longer for what this one has not written."""
        for future in tuple(self._awaited):
            if not future.done():
                future.set_exception(StoreUnavailable(self.shelf.name, "its process has ended"))

    def _check_open(self) -> None:
        if self._closed or self.loop.is_dead:
            raise StoreUnavailable(self.shelf.name, "it was closed")

    def __repr__(self) -> str:
        return f"SimulatedStore({self.shelf.name})"


class _Held(Lease):
    def __init__(self, store: SimulatedStore, name: str) -> None:
        self._store = store
        self._name = name

    @override
    async def release(self) -> None:
        leases = self._store.shelf.leases
        if leases.get(self._name) is self._store:
            del leases[self._name]


class _Membership(Membership):
    def __init__(self, store: SimulatedStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._id: str | None = None
        self.listener: Callable[[], None] | None = None

    @override
    async def announce(self, member: Member) -> tuple[Member, ...]:
        store, shelf = self._store, self._store.shelf
        store._check_open()
        await shelf.disk.pause(LONGEST_READ)
        self._id = member.id
        before = shelf.members.get(member.id)
        shelf.members[member.id] = (member, shelf.core.now + self._seconds, store)
        store.membership_here = self
        if before is None or before[0] != member:
            self._tell_others()
        present = (found for found, ends, _ in shelf.members.values() if shelf.core.now < ends)
        return tuple(sorted(present, key=lambda found: found.id))

    @override
    async def withdraw(self) -> None:
        if self._id is not None and self._store.shelf.members.pop(self._id, None) is not None:
            self._tell_others()

    @override
    def when_changed(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    def _tell_others(self) -> None:
        shelf = self._store.shelf
        for store in shelf.opened:
            other = store.membership_here
            if other is not None and other is not self and other.listener is not None:
                wait = shelf.chance.random() ** 2 * LONGEST_NOTICE
                shelf.core.at(shelf.core.now + wait, store.loop, Call(other.listener), "members")


def _now(work: Awaitable[T]) -> T:
    """The result of work that does not really wait."""
    waiting = work.__await__()
    try:
        while True:
            next(waiting)
    except StopIteration as end:
        result: T = end.value
        return result
