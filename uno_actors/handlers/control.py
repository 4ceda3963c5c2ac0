"""Requests of operators to handlers: pause, resume, reset, and retry dead letters.

The store keeps the requests, so they survive every process. The process that runs a handler carries them out
between two events: within half a second, or when it next starts.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from uno_actors.errors import InvalidReset, NoDeadLetter, UnknownHandler
from uno_actors.handlers.lag import events_behind
from uno_actors.handlers.partitions import log_of_partition, named, whole_name
from uno_actors.handlers.renaming import Kept, forget, rename
from uno_actors.handlers.requests import (
    NO_REQUESTS,
    PAUSED,
    RESET,
    RETRY,
    Pause,
    ReportedStatus,
    Requests,
    Reset,
    request_entry,
)
from uno_actors.handlers.spec import STARTS, Start, is_start
from uno_actors.handlers.view import Entry, ViewReader, entries
from uno_actors.store.handler_names import CONTROL, NODE, REPORTED, partition_in, partition_name
from uno_actors.store.logs import log_of_position, start_of, start_of_log
from uno_actors.store.port import EventStore
from uno_actors.store.queries import pages_to_end
from uno_actors.store.records import DeadLetter, ViewChange

NOT_RUNNING = "not running"


@dataclass(frozen=True, slots=True)
class HandlerInfo:
    """The state of one handler and the requests to it.

    Attributes:
        name: The handler's name.
        position: The handler has finished every event up to this position of the log. Of several partitions, that of
            the one with the greatest lag.
        lag: Number of log positions after ``position``, including events the handler does not subscribe to. Of several
            partitions, the greatest; those of different logs are added up.
        state: ``live``, ``catching up``, ``restarting``, ``paused``, ``stopped``; ``not running`` if no process
            runs the handler; ``standby`` if another process runs it and this one does not.
        failures: Attempts that failed since the system that runs the handler started; ``None`` if no system does.
        dead_letters: Number of its events that are in the dead letters now.
        paused: Whether a pause is requested. A paused handler handles nothing, even after a restart.
        reset_to: Position after which the handler must continue as soon as it can; ``None`` without a reset.
        retries: Number of dead letters that the handler must retry as soon as it can.
        view: The view that the handler writes, if it is a projection.
        node: Name of the node that runs the handler, which it reports within half a second; ``None`` if none does,
            or if it is the only node. Of several partitions, all nodes, separated by commas.
        partitions: Number of the handler's partitions that this sums up; 0 if it is not partitioned, or one partition.
    """

    name: str
    position: int
    lag: int
    state: str
    failures: int | None = None
    dead_letters: int = 0
    paused: bool = False
    reset_to: int | None = None
    retries: int = 0
    view: str | None = None
    node: str | None = None
    partitions: int = 0


class HandlerControl:
    """Sends requests to the handlers of a store and reports their state.

    Args:
        store: The handlers' store, open.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def handlers(self, *, partitions: bool = False) -> list[HandlerInfo]:
        """Return the state of every handler that has run on the store, sorted by name.

        A partitioned handler is one entry: see `HandlerInfo`.

        To find out whether a process runs a handler, this takes the handler's lease for a moment if the lease is
        free. A process that starts at that moment waits a second for the lease.

        Args:
            partitions: Whether to return each partition by itself instead.
        """
        known, (statuses, nodes) = await self._known(), await self._reported()
        ends, positions = await self._store.last_positions(), await self.positions()
        requests = await self.requests()
        letters = await self._store.dead_letter_counts()
        leased = await self._store.leased_among([name for name in known if name in statuses])
        found = []
        for name in sorted(known):
            entry, requested = known[name], requests.get(name, NO_REQUESTS)
            view = None if entry is None else entry.writing
            position = positions[name]
            runs = statuses[name] if name in leased else None
            state = NOT_RUNNING if runs is None else runs.state
            info = HandlerInfo(
                name,
                position,
                events_behind(position, ends),
                "paused" if requested.paused and runs is None else state,
                None if runs is None else runs.failures,
                letters.get(name, 0),
                requested.paused,
                None if requested.reset is None else requested.reset.position,
                len(requested.retry),
                view,
                None if runs is None else nodes.get(name),
            )
            found.append(info)
        return found if partitions else grouped(found)

    async def plain(self) -> list[str]:
        """Return the names of the handlers that have run on the store and are not projections.

        Each has reported a status. A consumer with a checkpoint of its own never does: see `EventStore.append`.
        """
        known, (statuses, _) = await self._known(), await self._reported()
        return [name for name, entry in known.items() if entry is None and name in statuses]

    async def positions(self) -> dict[str, int]:
        """Return the position of every handler that has run on the store; for a projection, of the view it writes."""
        known, checkpoints = await self._known(), await self._store.checkpoints()
        recorded_as = {name: name if entry is None else entry.writing or "" for name, entry in known.items()}
        return {
            name: checkpoints.get(recorded_as[name], start_of(*self._log_of(name))) for name in sorted(known)
        }

    def _log_of(self, name: str) -> tuple[int, int]:
        """The log that the handler or partition of this name reads, and how many the store has, which was used."""
        part, logs = partition_in(name), self._store.logs
        return log_of_partition(None if part is None else part[1], logs), logs

    async def check(self, *names: str) -> None:
        """Check that handlers of these names have run on the store.

        Raises:
            UnknownHandler: No handler of one of these names has run on the store.
        """
        for name in names:
            await self._meant(name)

    async def places(self, name: str, to: Start) -> dict[str, int]:
        """Return the position after which a handler, or each of its partitions, continues when it is reset to ``to``.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
            InvalidReset: ``to`` is not a valid start, or not a place in a log that a partition reads.
        """
        return await self._places(await self._meant(name), to)

    async def _places(self, names: Iterable[str], to: Start) -> dict[str, int]:
        if not is_start(to):
            raise InvalidReset(f"{', '.join(names)} continues from {STARTS}, not from {to!r}")
        ends = await self._store.last_positions()
        found, by_log = {}, dict[int, int]()
        for name in names:
            log, _ = self._log_of(name)
            if log not in by_log:
                by_log[log] = await position_of(self._store, to, ends[log])
            position, start, end = by_log[log], start_of_log(ends[log]), ends[log]
            if not start <= position <= end:
                reads = f"the log ends at {end}"
                if len(ends) > 1:
                    reads = (
                        f"it reads one of {len(ends)} logs, that from {start} to {end}; name the partitions that read"
                        f" the log of the position, such as {_partition_of_log(name, position, len(ends))!r}"
                    )
                raise InvalidReset(f"{name} cannot continue after position {position}: {reads}")
            found[name] = position
        return found

    async def pause(self, name: str, *, by: str = "", note: str = "") -> None:
        """Pause a handler until it is resumed. The pause also survives restarts of its system.

        Args:
            name: The handler's name.
            by: Who pauses it, for people who find it paused; see `uno_actors.ActorSystem.why`.
            note: Why, likewise.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
        """
        pause = list(Pause(by, note, datetime.now(UTC))) if by or note else True
        await self._change(*(request_entry(pause, each, PAUSED) for each in await self._meant(name)))

    async def resume(self, name: str) -> None:
        """Let a paused handler continue.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
        """
        await self._change(*(request_entry(None, each, PAUSED) for each in await self._meant(name)))

    async def reset(self, name: str, to: Start) -> int:
        """Make a handler continue from another position. A reset back repeats events; a reset forward skips them.

        A projection can only be reset to ``earliest``. It then builds a new view, while readers keep the old one.

        Args:
            name: The handler's name.
            to: As ``start`` of `uno_actors.handlers.spec.HandlerSpec`.

        Returns:
            The position after which the handler continues. On a store with several logs that of the first of the
            partitions; `places` has one for each.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
            InvalidReset: ``to`` is not a valid start or lies beyond the end of the log, or the handler is a
                projection and ``to`` is not ``earliest``.
        """
        meant = await self._meant(name)
        is_view = any(entry is not None for entry in meant.values())
        if is_view and partition_in(name) is not None:
            raise InvalidReset(
                f"{name} is a part of a view, which is rebuilt as a whole: reset {whole_name(name)!r}"
            )
        if not is_start(to):
            raise InvalidReset(f"{name} continues from {STARTS}, not from {to!r}")
        places = await self._places(meant, to)
        if is_view and any(position != start_of_log(position) for position in places.values()):
            raise InvalidReset(
                f"{name} is a projection, which counts every event: reset it to 'earliest' alone"
            )
        request = secrets.token_hex(8)
        replaced = [key for key, _ in await self._entries() if key[0] in meant and key[1] == RESET]
        await self._change(
            *(request_entry(None, *key) for key in replaced),
            *(request_entry([request, position], each, RESET, request) for each, position in places.items()),
        )
        return next(iter(places.values()))

    async def retry(self, name: str, positions: Sequence[int] | None = None) -> int:
        """Make a handler retry some of its dead letters, or all of them.

        Dead letters are retried out of log order: each one between two events, never at the same time as another
        event. If the handler succeeds, the letter is removed. Otherwise it stays, with one more attempt counted.

        Args:
            name: The handler's name.
            positions: Positions of the dead letters. Default is all of them.

        Returns:
            The number of dead letters to retry.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
            NoDeadLetter: The handler has no dead letter at one of the positions.
        """
        there = {letter.position: letter.handler for letter in await self.dead_letters(name)}
        wanted = list(there) if positions is None else list(dict.fromkeys(positions))
        for position in wanted:
            if position not in there:
                raise NoDeadLetter(name, position)
        await self._change(*(request_entry(True, there[position], RETRY, position) for position in wanted))
        return len(wanted)

    async def dead_letters(self, name: str) -> list[DeadLetter]:
        """Return the dead letters of a handler, of all its partitions, by position.

        Raises:
            UnknownHandler: No handler of this name has run on the store.
        """
        found = [
            letter for each in await self._meant(name) for letter in await self._store.dead_letters(each)
        ]
        return sorted(found, key=lambda letter: letter.position)

    async def retries(self, name: str) -> set[int]:
        """Return the positions of the dead letters of a handler that are still to be retried."""
        return {
            position
            for each, requests in (await self.requests()).items()
            if named(name, [each])
            for position in requests.retry
        }

    async def rename(self, old: str, new: str) -> Kept:
        """Let a handler continue under another name: its place in the log, dead letters, requests and views move.

        Do so when its name in the program changes, before the changed program starts. If it is interrupted, call it
        again.

        Args:
            old: The handler's name in the store.
            new: Its name from now on.

        Returns:
            How much was moved.

        Raises:
            UnknownHandler: The store keeps nothing under the name ``old``.
            InvalidHandler: ``new`` is not a valid name, or the store keeps something under it.
            HandlerIsRunning: A process runs a handler of one of these names.
        """
        return await rename(self._store, old, new)

    async def forget(self, name: str) -> Kept:
        """Remove all that the store keeps of a handler that the program no longer has. Events stay.

        A handler of this name is a new one afterwards. If it is interrupted, call it again.

        Returns:
            How much was removed.

        Raises:
            UnknownHandler: The store keeps nothing under this name.
            HandlerIsRunning: A process runs the handler.
        """
        return await forget(self._store, name)

    async def requests(self) -> dict[str, Requests]:
        """Return the requests to handlers, by handler name."""
        found: dict[str, dict[str, Any]] = {}
        for (name, what, *position), value in await self._entries():
            requested = found.setdefault(name, {})
            if what == PAUSED:
                requested["paused"] = True
            elif what == RESET:
                requested["reset"] = Reset(*value)
            elif what == RETRY:
                requested["retry"] = (*requested.get("retry", ()), *position)
        return {name: Requests(**requested) for name, requested in found.items()}

    async def pauses(self) -> dict[str, Pause]:
        """Return the pauses that are requested, by handler name, each partition by itself."""
        return {name: Pause.of(value) for (name, what, *_), value in await self._entries() if what == PAUSED}

    async def report(self, statuses: Mapping[str, ReportedStatus], node: str | None) -> None:
        """Store the status that running handlers report, and the name of the node that runs them if it is not alone."""
        await self._change(*status_entries(statuses), *(request_entry(node, name, NODE) for name in statuses))

    async def _reported(self) -> tuple[dict[str, ReportedStatus], dict[str, str]]:
        """What running handlers have reported last: their statuses, and the names of their nodes."""
        statuses, nodes = {}, {}
        for (name, what, *_), value in await self._entries():
            if what == REPORTED:
                statuses[name] = ReportedStatus(*value)
            elif what == NODE:
                nodes[name] = str(value)
        return statuses, nodes

    async def _entries(self) -> list[tuple[tuple[Any, ...], Any]]:
        found = await ViewReader(self._store, CONTROL, {}).range()
        return [(key, value) for key, value in found if isinstance(key, tuple)]

    async def _change(self, *changes: ViewChange) -> None:
        if changes:
            await self._store.save_progress({}, views=changes)

    async def _known(self) -> dict[str, Entry | None]:
        """Return the handlers that have run on the store, with the directory's entry of each projection."""
        projections = await entries(self._store)
        views = {view for entry in projections.values() for view in entry.views}
        plain = [name for name in await self._store.checkpoints() if name not in views]
        return dict.fromkeys(plain) | projections

    async def _meant(self, name: str) -> dict[str, Entry | None]:
        """Return the handler of this name, or its partitions, each with its entry in the directory of projections."""
        known = await self._known()
        meant = named(name, known)
        if not meant:
            raise UnknownHandler(name, sorted({whole_name(each) for each in known}))
        layouts = {part[2] for each in meant if (part := partition_in(each)) is not None and each != name}
        # Partitions that have not run yet are meant too.
        every = [partition_name(name, number, count) for count in layouts for number in range(1, count + 1)]
        return {each: known.get(each) for each in dict.fromkeys((*meant, *every))}


def status_entries(statuses: Mapping[str, ReportedStatus]) -> list[ViewChange]:
    """What is stored when running handlers report a status. A name that has none is not a handler."""
    return [request_entry(list(each), name, REPORTED) for name, each in statuses.items()]


_STATES = ("restarting", NOT_RUNNING, "stopped", "handing over", "catching up", "standby", "paused", "live")
"""States of handlers, the one first that an operator must know of partitions in different ones."""


def grouped(infos: Sequence[HandlerInfo]) -> list[HandlerInfo]:
    """Sum up the partitions of each handler in one entry.

    Lags in one log are not added up: each counts all events of the log, and the greatest is that of all partitions.
    """
    parts: dict[str, list[HandlerInfo]] = {}
    for info in infos:
        parts.setdefault(whole_name(info.name), []).append(info)
    return [
        each[0] if each[0].name == name and len(each) == 1 else _summed(name, each)
        for name, each in sorted(parts.items())
    ]


def _summed(name: str, parts: Sequence[HandlerInfo]) -> HandlerInfo:
    failures = [part.failures for part in parts if part.failures is not None]
    resets = [part.reset_to for part in parts if part.reset_to is not None]
    nodes = sorted({part.node for part in parts if part.node is not None})
    lags: dict[int, int] = {}
    for part in parts:
        log = log_of_position(part.position)
        lags[log] = max(part.lag, lags.get(log, 0))
    return HandlerInfo(
        name,
        max(parts, key=lambda part: (part.lag, -part.position)).position,
        sum(lags.values()),
        min(
            (part.state for part in parts), key=lambda state: _STATES.index(state) if state in _STATES else 0
        ),
        sum(failures) if failures else None,
        sum(part.dead_letters for part in parts),
        all(part.paused for part in parts),
        min(resets, default=None),
        sum(part.retries for part in parts),
        next((f"{name}{part.view.removeprefix(part.name)}" for part in parts if part.view is not None), None),
        node=", ".join(nodes) or None,
        partitions=len(parts),
    )


def _partition_of_log(name: str, position: int, logs: int) -> str:
    """The name of a partition of the same handler that reads the log of ``position``."""
    _, number, count = partition_in(name) or (name, 1, 1)
    log = log_of_position(position) % logs
    return partition_name(whole_name(name), number - log_of_partition(number, logs) + log, count)


async def position_of(store: EventStore, start: Start, end: int) -> int:
    """Return the position after which a handler with this ``start`` begins; ``end`` is the last position of its log.

    To find a time, the log is read from its beginning, because timestamps need not increase from event to event.
    """
    if isinstance(start, int):
        return start
    if not isinstance(start, datetime):
        return start_of_log(end) if start == "earliest" else end
    moment = start if start.tzinfo is not None else start.replace(tzinfo=UTC)

    async def last() -> int:
        return end

    async with aclosing(pages_to_end(store.read_log, last, itemgetter(0), start_of_log(end))) as pages:
        async for page in pages:
            for position, record in page:
                if position > end or record.timestamp >= moment:
                    return min(position - 1, end)
    return end
