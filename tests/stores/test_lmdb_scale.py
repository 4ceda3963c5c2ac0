"""A store of ten million events is read as quickly as one of a million, and needs no more room for each.

Appending is slower by a quarter to a third at five million than at one, and stays so at ten: each event changes a page
of the index and those above it, which are more and lie further apart in a large store.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from uno_actors.store.codec import Record, StreamId
from uno_actors.store.records import Append
from uno_stores import LmdbEventStore

MILLION = 1_000_000
STREAMS = 100_000
SMALL, LARGE = 100, 1000
"""Events in one commit, each of another stream."""
WINDOWS, WINDOW = 5, {SMALL: 20_000, LARGE: 100_000}
"""Before each mark so many stretches are measured; the best counts, since other programs disturb the rest."""


class Writer:
    """Appends events of random streams, as many small aggregates do."""

    def __init__(self, store: LmdbEventStore) -> None:
        self.store = store
        self.random = Random(1)
        self.written = 0

    def append(self) -> Append:
        ids = [f"{self.random.getrandbits(128):032x}" for _ in range(3)]
        record = Record(
            event_id=ids[0],
            event_type="Deposited",
            version=1,
            aggregate_type="Account",
            aggregate_id=f"account-{self.random.randrange(STREAMS)}",
            aggregate_version=None,
            topic="accounts.deposited",
            timestamp=datetime.now(UTC),
            correlation_id=ids[1],
            causation_id=ids[2],
            command_id=None,
            reply=None,
            command_causation_id=None,
            payload=b"\x81\xa6amount\x01",
        )
        return Append((record,))

    async def write(self, count: int, size: int = LARGE) -> float:
        """Append so many, ``size`` in a commit; events per second of the commits alone."""
        seconds = 0.0
        for _ in range(count // size):
            group = [self.append() for _ in range(size)]
            started = time.perf_counter()
            await self.store.commit(group)
            seconds += time.perf_counter() - started
        self.written += count
        return count / seconds

    async def read(self, streams: int = 500) -> float:
        """Read so many streams; events per second."""
        names = [StreamId("Account", f"account-{self.random.randrange(STREAMS)}") for _ in range(streams)]
        started = time.perf_counter()
        events = 0
        for name in names:
            events += len(await self.store.read_stream(name, 0, 1000))
        return events / (time.perf_counter() - started)


@pytest.mark.soak
@pytest.mark.timeout(3000)
async def test_ten_million_events_cost_little_more_than_one_million(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store"
    seen: dict[int, tuple[float, ...]] = {}
    async with LmdbEventStore(path) as store:
        writer = Writer(store)
        for mark in (1, 5, 10):
            await writer.write(mark * MILLION - writer.written - WINDOWS * sum(WINDOW.values()))
            small, large = [
                max([await writer.write(window, events) for _ in range(WINDOWS)])
                for events, window in WINDOW.items()
            ]
            length = writer.written / STREAMS  # a longer stream takes less time for each of its events
            read = max([await writer.read() for _ in range(WINDOWS)])
            size = (path / "data.mdb").stat().st_blocks * 512 / writer.written
            seen[mark] = small, large, read, size
            with capsys.disabled():
                print(
                    f"\n{writer.written:>10,} events: {small:,.0f} appended/s in commits of {SMALL}, {large:,.0f} in"
                    f" commits of {LARGE:,}; {read:,.0f} read/s of streams of {length:.0f}; {size:.0f} bytes each",
                    flush=True,
                )
    for mark, before in ((5, 1), (10, 1), (10, 5)):
        small, large, read, size = (now / then for now, then in zip(seen[mark], seen[before], strict=True))
        assert min(small, large) > (0.5 if before == 1 else 0.8)
        assert read > 0.8
        assert size < 1.2
