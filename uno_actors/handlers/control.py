"""What operators ask of handlers: pause, resume, reset, retry what was set aside.

Requests are kept in the store, whose changes outlive every process. Whichever process runs a handler carries them
out, between two events: within half a second, or when it starts next.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from uno_actors.errors import InvalidReset, NoDeadLetter, UnknownHandler
from uno_actors.handlers.requests import (
    NO_REQUESTS,
    PAUSED,
    RESET,
    RETRY,
    ReportedStatus,
    Requests,
    Reset,
    request_entry,
)
from uno_actors.handlers.spec import STARTS, Start, is_start
from uno_actors.handlers.view import Entry, ViewReader, entries
from uno_actors.store.handler_names import CONTROL, REPORTED
from uno_actors.store.port import EventStore
from uno_actors.store.records import ViewChange

NOT_RUNNING = "not running"


@dataclass(frozen=True, slots=True)
class HandlerInfo:
    """How a handler is.

    Attributes:
        name: Its name.
        position: It has done with everything in the log up to here.
        lag: Positions of the log beyond it, whether they are for it or not.
        state: ``live``, ``catching up``, ``restarting``, ``paused``, ``stopped``; ``not running`` if no process
            runs it; ``standby`` if this one does not and another does.
        failures: Attempts that failed since the system that runs it was started; ``None`` if none runs it.
        dead_letters: Events that it has set aside and that are still there.
        paused: Whether it is to handle nothing, also when it is started.
        reset_to: Where it is to go on as soon as it can.
        retries: Dead letters that it is to be given as soon as it can.
        view: The view that it writes, if it is a projection.
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


class HandlerControl:
    """Asks handlers of a store to do something, and tells how they are.

    Args:
        store: Theirs, open.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def handlers(self) -> list[HandlerInfo]:
        """How every handler is that has run on the store, by name.

        To learn whether one is run by a process, its lease is taken for a moment if it is free. A process that
        starts just then waits a second for it.
        """
        known, statuses = await self._known(), await self._statuses()
        end, positions = await self._store.last_position(), await self.positions()
        requests = await self.requests()
        letters = Counter(letter.handler for letter in await self._store.dead_letters())
        found = []
        for name in sorted(known):
            entry, requested = known[name], requests.get(name, NO_REQUESTS)
            view = None if entry is None else entry.writing
            position = positions[name]
            runs = statuses.get(name) if await self._store.is_leased(name) else None
            state = NOT_RUNNING if runs is None else runs.state
            info = HandlerInfo(
                name,
                position,
                max(0, end - position),
                "paused" if requested.paused and runs is None else state,
                None if runs is None else runs.failures,
                letters[name],
                requested.paused,
                None if requested.reset is None else requested.reset.position,
                len(requested.retry),
                view,
            )
            found.append(info)
        return found

    async def plain(self) -> list[str]:
        """The handlers that have run on the store and are no projections."""
        return [name for name, entry in (await self._known()).items() if entry is None]

    async def positions(self) -> dict[str, int]:
        """How far every handler has come that has run on the store, by name; a projection with what it writes now."""
        known, checkpoints = await self._known(), await self._store.checkpoints()
        recorded_as = {name: name if entry is None else entry.writing or "" for name, entry in known.items()}
        return {name: checkpoints.get(recorded_as[name], 0) for name in sorted(known)}

    async def check(self, *names: str) -> None:
        """Do nothing.

        Raises:
            UnknownHandler: None of one of these names has run on the store.
        """
        for name in names:
            await self._check_known(name)

    async def place(self, to: Start) -> int:
        """The position after which a handler goes on that is reset to there."""
        return await position_of(self._store, to, await self._store.last_position())

    async def pause(self, name: str) -> None:
        """Have a handler handle nothing until it is resumed, also after restarts of its system.

        Raises:
            UnknownHandler: None of this name has run on the store.
        """
        await self._check_known(name)
        await self._change(request_entry(True, name, PAUSED))

    async def resume(self, name: str) -> None:
        """Have a paused handler go on.

        Raises:
            UnknownHandler: None of this name has run on the store.
        """
        await self._check_known(name)
        await self._change(request_entry(None, name, PAUSED))

    async def reset(self, name: str, to: Start) -> int:
        """Have a handler go on from another place: it handles again what lies between, or never.

        A projection is reset to ``earliest`` alone: its view is built anew, beside the one that is read.

        Args:
            name: Of the handler.
            to: As ``start`` of `uno_actors.handlers.spec.HandlerSpec`.

        Returns:
            The position after which it goes on.

        Raises:
            UnknownHandler: None of this name has run on the store.
            InvalidReset: The log does not reach so far, ``to`` is no place, or it is a projection.
        """
        entry = await self._check_known(name)
        if not is_start(to):
            raise InvalidReset(f"{name} goes on from {STARTS}, not from {to!r}")
        end = await self._store.last_position()
        position = await position_of(self._store, to, end)
        if entry is not None and position:
            raise InvalidReset(
                f"{name} is a projection, which counts every event: reset it to 'earliest' alone"
            )
        if not 0 <= position <= end:
            raise InvalidReset(f"{name} cannot go on after position {position}: the log ends at {end}")
        request = secrets.token_hex(8)
        replaced = [key for key, _ in await self._entries() if key[:2] == (name, RESET)]
        await self._change(
            *(request_entry(None, *key) for key in replaced),
            request_entry([request, position], name, RESET, request),
        )
        return position

    async def retry(self, name: str, positions: Sequence[int] | None = None) -> int:
        """Have a handler given some of its dead letters once more, or all of them.

        They come out of order: each between two other events of the log, never beside one. If the handler
        succeeds, the letter is removed; else it stays, with one more attempt.

        Args:
            name: Of the handler.
            positions: Those of the letters.

        Returns:
            How many.

        Raises:
            UnknownHandler: None of this name has run on the store.
            NoDeadLetter: There is none at one of the positions.
        """
        await self._check_known(name)
        there = [letter.position for letter in await self._store.dead_letters(name)]
        wanted = there if positions is None else list(dict.fromkeys(positions))
        for position in wanted:
            if position not in there:
                raise NoDeadLetter(name, position)
        await self._change(*(request_entry(True, name, RETRY, position) for position in wanted))
        return len(wanted)

    async def requests(self) -> dict[str, Requests]:
        """What is requested of handlers, by name."""
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

    async def report(self, statuses: Mapping[str, ReportedStatus]) -> None:
        """Keep the status that running handlers report."""
        await self._change(*(request_entry(list(each), name, REPORTED) for name, each in statuses.items()))

    async def _statuses(self) -> dict[str, ReportedStatus]:
        return {
            name: ReportedStatus(*value)
            for (name, what, *_), value in await self._entries()
            if what == REPORTED
        }

    async def _entries(self) -> list[tuple[tuple[Any, ...], Any]]:
        found = await ViewReader(self._store, CONTROL, {}).range()
        return [(key, value) for key, value in found if isinstance(key, tuple)]

    async def _change(self, *changes: ViewChange) -> None:
        if changes:
            await self._store.save_progress({}, views=changes)

    async def _known(self) -> dict[str, Entry | None]:
        """The handlers that have run on the store, and what the directory says of those that are projections."""
        projections = await entries(self._store)
        views = {view for entry in projections.values() for view in entry.views}
        plain = [name for name in await self._store.checkpoints() if name not in views]
        return dict.fromkeys(plain) | projections

    async def _check_known(self, name: str) -> Entry | None:
        known = await self._known()
        if name not in known:
            raise UnknownHandler(name, known)
        return known[name]


async def position_of(store: EventStore, start: Start, end: int) -> int:
    """The position after which a handler begins that is to start there; ``end`` is that of the log.

    For a time the log is read from its beginning, for timestamps need not grow from one event to the next.
    """
    if isinstance(start, int):
        return start
    if not isinstance(start, datetime):
        return 0 if start == "earliest" else end
    moment = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
    async with aclosing(store.read_records()) as records:
        async for position, record in records:
            if position > end or record.timestamp >= moment:
                return min(position - 1, end)
    return end
