"""A store of ten million events is as quick as one of a million, and needs no more room for each."""

import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from stores import LmdbEventStore
from uno_actors.codec import Record, StreamId
from uno_actors.store import Append

MILLION = 1_000_000
STREAMS = 100_000
GROUP = 1000
"""Events in one commit, each of another stream."""
WINDOWS, WINDOW = 5, 100_000
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

    async def write(self, count: int) -> float:
        """Append so many; events per second of the commits alone."""
        seconds = 0.0
        for _ in range(count // GROUP):
            group = [self.append() for _ in range(GROUP)]
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
            events += len(await self.store.read_stream(name, 0, GROUP))
        return events / (time.perf_counter() - started)


@pytest.mark.soak
@pytest.mark.timeout(3000)
async def test_ten_million_events_are_as_quick_as_one_million(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store"
    seen: dict[int, tuple[float, float, float]] = {}
    async with LmdbEventStore(path) as store:
        writer = Writer(store)
        for mark in (1, 5, 10):
            await writer.write(mark * MILLION - writer.written - WINDOWS * WINDOW)
            appended = max([await writer.write(WINDOW) for _ in range(WINDOWS)])
            length = writer.written / STREAMS  # a longer stream takes less time for each of its events
            read = max([await writer.read() for _ in range(WINDOWS)])
            size = (path / "data.mdb").stat().st_blocks * 512 / writer.written
            seen[mark] = appended, read, size
            with capsys.disabled():
                print(
                    f"\n{writer.written:>10,} events: {appended:,.0f} appended/s, {read:,.0f} read/s of streams of"
                    f" {length:.0f}, {size:.0f} bytes each",
                    flush=True,
                )
    for mark in (5, 10):
        appended, read, size = (now / before for now, before in zip(seen[mark], seen[1], strict=True))
        assert appended > 0.8
        assert read > 0.8
        assert size < 1.2
