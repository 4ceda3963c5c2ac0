"""Renames a handler in its store, and removes what the store keeps of one.

That is its checkpoint, its dead letters, the requests of operators, and the views of a projection, for each of its
partitions: see `uno_actors.store.handler_names`. Both take the leases of all names first, so that no process runs the
handler meanwhile. If either is interrupted, the same call finishes it.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from uno_actors.errors import HandlerIsRunning, InvalidHandler, UnknownHandler
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.requests import request_entry
from uno_actors.handlers.spec import check_name
from uno_actors.handlers.view import Entry, ViewReader, entries
from uno_actors.store.handler_names import CONTROL, DIRECTORY, MARK, RENAMED
from uno_actors.store.handler_names import NODE as RUNS_AT
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, DeadLetter, ViewChange
from uno_actors.store.view_keys import pack_key


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store keeps of one handler, in numbers.

    Attributes:
        checkpoints: Checkpoints, each partition's and each view's counted.
        views: Views of a projection.
        dead_letters: Its dead letters.
    """

    checkpoints: int
    views: int
    dead_letters: int


class _Found:
    """What a store keeps of one handler."""

    def __init__(
        self,
        checkpoints: dict[str, int],
        letters: list[DeadLetter],
        directory: dict[str, Entry],
        requests: list[tuple[tuple[Any, ...], Any]],
    ) -> None:
        self.checkpoints = checkpoints
        self.letters = letters
        self.directory = directory
        self.requests = requests

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.letters or self.directory or self.requests)

    @property
    def views(self) -> list[str]:
        """The names of all its views."""
        listed = [view for entry in self.directory.values() for view in (*entry.views, *entry.built)]
        named = [entry.current for entry in self.directory.values()]
        named += [entry.writing for entry in self.directory.values()]
        return list(dict.fromkeys([*listed, *(view for view in named if view is not None)]))

    def counted(self) -> Kept:
        """In numbers."""
        return Kept(len(self.checkpoints), len(self.views), len(self.letters))

    def names(self) -> list[str]:
        """The handler or the partitions whose leases protect it."""
        listed = [*self.checkpoints, *(letter.handler for letter in self.letters), *self.directory]
        parts = [name for name in listed if MARK in name and whole_name(name) != name]
        return list(dict.fromkeys(parts))

    def without_letters(self) -> list[tuple[str, int]]:
        """The dead letters to drop."""
        return [(letter.handler, letter.position) for letter in self.letters]

    def removals(self) -> list[ViewChange]:
        """The changes that remove its entries from the directory and from the requests."""
        directory = [ViewChange(DIRECTORY, pack_key(name), None) for name in self.directory]
        return [*directory, *(request_entry(None, *key) for key, _ in self.requests)]


async def _find(store: EventStore, name: str) -> _Found:
    controls = await ViewReader(store, CONTROL, {}).range()
    return _Found(
        {each: at for each, at in (await store.checkpoints()).items() if _is_of(each, name)},
        [letter for letter in await store.dead_letters() if _is_of(letter.handler, name)],
        {each: entry for each, entry in (await entries(store)).items() if _is_of(each, name)},
        [(key, value) for key, value in controls if isinstance(key, tuple) and _is_of(str(key[0]), name)],
    )


def _is_of(name: str, handler: str) -> bool:
    """Whether a checkpoint, a view or a partition belongs to a handler."""
    return name == handler or name.startswith(handler + MARK)


@asynccontextmanager
async def _leased(store: EventStore, names: Iterable[str]) -> AsyncIterator[None]:
    """Hold the leases of ``names``, so that no process runs these handlers.

    Raises:
        HandlerIsRunning: A process runs one of them.
    """
    async with AsyncExitStack() as stack:
        for name in dict.fromkeys(names):
            lease = await store.lease(name)
            if lease is None:
                raise HandlerIsRunning(name)
            stack.push_async_callback(lease.release)
        yield


async def forget(store: EventStore, name: str) -> Kept:
    """Remove all that the store keeps of a handler, and return how much it was. Events stay.

    Raises:
        UnknownHandler: It keeps nothing under this name.
        HandlerIsRunning: A process runs the handler.
    """
    found = await _find(store, name)
    if not found:
        raise UnknownHandler(name, await _known(store))
    async with _leased(store, (name, *found.names())):
        found = await _find(store, name)  # as it is now that no process can change it
        views = found.views
        for view in views:
            await store.drop_view(view)
        await store.save_progress({}, (), found.removals(), found.without_letters())
        for checkpoint in found.checkpoints:  # last: while it is there, the handler is listed
            if checkpoint not in views:
                await store.drop_view(checkpoint)
    return found.counted()


async def rename(store: EventStore, old: str, new: str) -> Kept:
    """Let a handler continue under another name, with its place in the log, its dead letters, requests and views.

    Raises:
        UnknownHandler: The store keeps nothing under the name ``old``.
        InvalidHandler: ``new`` is not a valid name, or the store keeps something under it.
        HandlerIsRunning: A process runs a handler of one of these names.
    """
    check_name(new)
    found = await _find(store, old)
    if not found:
        raise UnknownHandler(old, await _known(store))
    parts = [new + name[len(old) :] for name in found.names()]
    async with _leased(store, (old, *found.names(), new, *parts)):
        found, there = await _find(store, old), await _find(store, new)
        moved_to = _moved_to(found)
        if moved_to not in (None, new):
            raise InvalidHandler(
                f"the renaming of {old!r} to {moved_to!r} was interrupted: call it again first"
            )
        if moved_to is None:
            if there:
                raise InvalidHandler(
                    f"the store keeps a handler {new!r} already: forget it first, or choose another name"
                )
            await _move(store, found, old, new)
            there = await _find(store, new)
        for name in dict.fromkeys((*found.views, *found.checkpoints)):
            await store.drop_view(name)
        await store.save_progress({}, views=[request_entry(None, old, RENAMED)])
    return there.counted()


def _moved_to(found: _Found) -> str | None:
    """The name to which an interrupted call has moved everything, so that only the rest is to be removed."""
    return next((str(value) for key, value in found.requests if key[1:] == (RENAMED,)), None)


async def _move(store: EventStore, found: _Found, old: str, new: str) -> None:
    """Copy the views, then move all else in one transaction, with a mark that the old name is to be removed."""

    def moved(name: str) -> str:
        return new + name[len(old) :]

    def moved_if(view: str | None) -> str | None:
        return None if view is None else moved(view)

    for view in found.views:
        await store.drop_view(moved(view))  # what an interrupted call has copied
        await _copy(store, view, moved(view))
    entries_ = [
        Entry(
            moved_if(entry.current),
            moved_if(entry.writing),
            tuple(map(moved, entry.views)),
            entry.builds,
            tuple(map(moved, entry.built)),
        ).of(moved(name))
        for name, entry in found.directory.items()
    ]
    kept = [(key, value) for key, value in found.requests if key[1] != RUNS_AT]
    requests = [request_entry(value, moved(str(key[0])), *key[1:]) for key, value in kept]
    await store.save_progress(
        {moved(name): position for name, position in found.checkpoints.items()},
        [letter._replace(handler=moved(letter.handler)) for letter in found.letters],
        [*entries_, *requests, *found.removals(), request_entry(new, old, RENAMED)],
        found.without_letters(),
    )


async def _copy(store: EventStore, view: str, to: str) -> None:
    start = b""
    while page := await store.read_view(view, start, limit=PAGE):
        await store.save_progress({}, views=[ViewChange(to, key, value) for key, value in page])
        start = page[-1][0] + b"\0"


async def _known(store: EventStore) -> list[str]:
    """The names of all handlers of which the store keeps something."""
    names = {*await store.checkpoints(), *(letter.handler for letter in await store.dead_letters())}
    return sorted({name.partition(MARK)[0] for name in names})
