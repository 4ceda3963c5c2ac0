"""The process in which one version of a program runs during a rehearsal: ``python -m uno_actors.rehearsal.worker``.

It answers one request after the other, on its standard input and output; what the program prints goes to the error
output. It opens the store for reading only, and ends when the rehearsal does.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

from uno_actors.config.errors import InvalidConfig
from uno_actors.domain.aggregate import AggregateRoot, new_aggregate
from uno_actors.errors import UnoError, describe
from uno_actors.rehearsal.channel import Channel, Ended
from uno_actors.rehearsal.decisions import RecordedCommand, decided
from uno_actors.rehearsal.folding import FoldedView, Wanted, folded, key_text, why_not_folded
from uno_actors.rehearsal.program import NotAProgram, Program, file_of, is_file, program_of
from uno_actors.rehearsal.reading import Pass
from uno_actors.rehearsal.states import digest, form_of, state_of
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore

PROTOCOL = 1
"""Of the messages: both sides must have the same."""
BATCH = 2_000
"""Streams or rows in one message."""
PROGRESS_EVERY = 0.2
"""Seconds between two reports of progress."""


class Worker:
    """Answers requests; each is a list of the name of a method and its arguments, as a mapping.

    Args:
        channel: To the rehearsal.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._program: Program
        self._store: EventStore
        self._views: dict[str, FoldedView] = {}

    async def run(self) -> None:
        """Answer until the rehearsal has ended."""
        while True:
            name, given = self._channel.receive()
            try:
                answer = await getattr(self, name)(**given)
            except (NotAProgram, InvalidConfig, UnoError) as error:
                self._channel.send(["error", str(error)])
            except Exception as error:  # noqa: BLE001 - the rehearsal reports it
                self._channel.send(["error", describe(error)])
            else:
                self._channel.send(["done", answer])

    async def load(self, paths: list[str], sources: list[str], url: str) -> dict[str, Any]:
        """Import the program, with ``paths`` first, and open the store; what the program has."""
        sys.path[:0] = paths
        if not paths:  # else the directory of a file would come before what is installed
            sys.path += [str(Path(source).parent) for source in sources if is_file(source)]
        self._program = program = program_of(sources)
        self._store = open_store(url, read_only=True)
        return {
            "types": {kind.aggregate_type: file_of(kind) for kind in program.aggregates},
            "views": {spec.name: spec.target.version for spec in folded(program.handlers)},
            "left_out": {
                spec.name: reason for spec in program.handlers if (reason := why_not_folded(spec)) is not None
            },
        }

    async def read(
        self,
        *,
        ends: list[int],
        part: int,
        parts: int,
        chosen: list[list[str]] | None,
        views: bool,
        snapshots: bool,
    ) -> dict[str, Any]:
        """Read the log; streams and rows of views are sent on the way. Part -1 has no streams, only views."""
        wanted = Wanted(self._program.handlers, self._store.event_registry) if views else None
        found = Pass(
            self._store,
            self._program.types,
            ends,
            part=part,
            parts=parts,
            chosen=None if chosen is None else {StreamId(*each) for each in chosen},
            views=wanted,
            snapshots=snapshots,
        )
        await found.run(_now_and_then(lambda done: self._channel.send(["progress", done])))
        results = (
            [*stream, found.streams[stream].version, *found.result(stream)] for stream in found.streams
        )
        self._send_all("streams", results)
        if wanted is not None:
            self._views = {view.name: view for view in wanted.views}
            for view in wanted.views:
                self._send_all(f"rows {view.name}", ([key, digest] for key, digest in view.rows()))
        return {
            "kinds": [[*kind, *astuple(readable)] for kind, readable in found.kinds.items()],
            "unknown": found.unknown,
            "judged": {name: list(judged) for name, judged in found.judged.items()},
            "failures": {
                view.name: {name: list(astuple(each)) for name, each in view.failures.items()}
                for view in self._views.values()
            },
        }

    def _send_all(self, what: str, items: Iterator[Any]) -> None:
        while batch := list(islice(items, BATCH)):
            self._channel.send([what, batch])

    async def trace(
        self, stream: list[str], field: str, after: int, until: int, every: int
    ) -> list[list[Any]]:
        """The digest of one field at each ``every``-th version of a stream, and at the last one."""
        found = []
        async for instance in self._versions(StreamId(*stream), until):
            at = instance.version
            if at > after and (at % every == 0 or at == until):
                state = state_of(instance)
                found.append([at, digest(form_of(state[field])) if field in state else None])
        return found

    async def state(self, stream: list[str], version: int) -> dict[str, Any]:
        """The state of an aggregate at a version, as forms by field."""
        instance = await self._at(StreamId(*stream), version)
        return {name: form_of(value) for name, value in state_of(instance).items()}

    async def row(self, view: str, key: bytes) -> Any:
        """The form of the value of a key of a view that was built; ``None`` in a list if it has no such key."""
        try:
            return [self._views[view].value(key)]
        except KeyError:
            return []

    async def key(self, key: bytes) -> str:
        """The text of a key of a view."""
        return key_text(key)

    async def decide(self, command: list[Any]) -> list[Any]:
        """How the program answers a command, twice: what is left to chance differs."""
        recorded = RecordedCommand(*command)
        return [list(decided(await self._at(recorded.stream, recorded.version), recorded)) for _ in range(2)]

    async def _at(self, stream: StreamId, version: int) -> AggregateRoot:
        instance = new_aggregate(self._program.types[stream.aggregate_type], stream.aggregate_id)
        if version:
            async for instance in self._versions(stream, version):  # noqa: B007 - the last one counts
                pass
        return instance

    async def _versions(self, stream: StreamId, until: int) -> Any:
        """An aggregate, after each of its events."""
        instance = new_aggregate(self._program.types[stream.aggregate_type], stream.aggregate_id)
        while instance.version < until and (
            page := await self._store.read_stream(stream, instance.version, until - instance.version)
        ):
            for position, record in page:
                instance.replay((to_event(record, self._store.event_registry, position),))
                yield instance


def _now_and_then(report: Callable[[int], object]) -> Callable[[int], None]:
    last = time.monotonic()

    def maybe(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_EVERY:
            last = time.monotonic()
            report(done)

    return maybe


def main() -> None:
    """Serve the rehearsal that has started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rehearsal ends its workers
    inward, outward = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    gc.set_threshold(100_000, 20, 100)  # what is loaded stays until the end
    channel = Channel(inward, outward)
    channel.send(["hello", PROTOCOL])
    try:
        asyncio.run(Worker(channel).run())
    except Ended:
        os._exit(0)  # what the program has started need not end well


if __name__ == "__main__":
    main()
