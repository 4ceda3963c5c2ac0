"""Flipped bytes in an LMDB store: told with position and stream, never a wrong event."""

import asyncio
import contextlib
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults import change_value, file_changes, value_in_file
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CorruptRecord
from uno_actors.store.codec import StreamId
from uno_actors.store.records import DeadLetter
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.options import MAP_SIZE, Options

REGISTRY = EventRegistry([Noted])
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def noted(aggregate_id: str, text: str) -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text=text)


def u64(number: int) -> bytes:
    return number.to_bytes(8)


async def filled(path: Path) -> LmdbEventStore:
    store = LmdbEventStore(path, REGISTRY)
    for number in range(3):
        await store.append(noted("alice", f"to alice {number}"), noted("bob", f"to bob {number}"))
    return store


async def test_each_flipped_byte_of_a_record_is_told_with_its_position_and_stream(tmp_path: Path) -> None:
    async with await filled(tmp_path) as store:
        whole = value_in_file(store, "log", u64(3))
        for place in range(len(whole)):
            flipped = bytearray(whole)
            flipped[place] ^= random.randrange(1, 256)
            change_value(store, "log", u64(3), bytes(flipped))
            with pytest.raises(
                CorruptRecord, match=r"position 3 \(Account<alice> version 2\) of .*check sum"
            ):
                await store.read_stream(StreamId("Account", "alice"))
            with pytest.raises(CorruptRecord, match=r"(?s)position 3 \(.*\) of .*check sum"):
                await store.read_log()
            assert len(await store.read_stream(StreamId("Account", "bob"))) == 3
        change_value(store, "log", u64(3), whole)
        assert len(await store.read_log()) == 6


async def test_reader_of_the_log_is_told_the_stream_by_the_damaged_header(tmp_path: Path) -> None:
    async with await filled(tmp_path) as store:
        whole = value_in_file(store, "log", u64(3))
        change_value(store, "log", u64(3), whole.replace(b"to alice 1", b"to alice 9"))
        with pytest.raises(CorruptRecord, match=r"position 3 \(by its header Account<alice> version 2\)"):
            await store.read_log()


async def test_record_in_the_place_of_another_is_not_believed(tmp_path: Path) -> None:
    async with await filled(tmp_path) as store:
        change_value(
            store,
            "log",
            u64(3),
            value_in_file(store, "log", u64(5)),
        )
        with pytest.raises(CorruptRecord, match="position 3 .*check sum"):
            await store.read_log()


@pytest.mark.parametrize("short", [b"", b"\x00", b"\x00\x00\x00\x00"])
async def test_record_that_was_cut_off_is_told(tmp_path: Path, short: bytes) -> None:
    async with await filled(tmp_path) as store:
        change_value(store, "log", u64(3), short)
        with pytest.raises(CorruptRecord, match="position 3 "):
            await store.read_log()


INDEX = {
    # name: (version whose entry changes, its new value, part of the message)
    "another event of the stream": (2, u64(5), r"position 5 .*version 2\).*that of Account<alice> version 3"),
    "an event of another stream": (2, u64(4), r"position 4 .*version 2\).*that of Account<bob> version 2"),
    "no event": (2, u64(99), r"position 99 .*not in the log"),
    "no position": (2, b"\x01", r"not in the log"),
}


@pytest.mark.parametrize(("version", "value", "text"), INDEX.values(), ids=INDEX)
async def test_index_that_leads_to_the_wrong_event_is_told(
    tmp_path: Path, version: int, value: bytes, text: str
) -> None:
    async with await filled(tmp_path) as store:
        change_value(store, "streams", b"alice\0Account\0" + u64(version), value)
        with pytest.raises(CorruptRecord, match=text):
            await store.read_stream(StreamId("Account", "alice"))


async def test_an_index_entry_that_was_refused_is_refused_again_in_the_same_transaction(
    tmp_path: Path,
) -> None:
    """What was found sound is remembered, by key and position; what was not, and what could not be read, is not."""
    await (await filled(tmp_path)).close()
    environment = Environment(tmp_path, Options("fsync", MAP_SIZE, None))
    with contextlib.closing(environment):
        key = b"alice\0Account\0" + u64(2)
        sound, wrong, absent = u64(3), u64(5), u64(99)
        with environment.reading() as reading:
            for position in (wrong, absent, sound, wrong):
                for _ in range(2):
                    if position == wrong:
                        with pytest.raises(CorruptRecord, match="that of Account<alice> version 3"):
                            reading.check_indexed(key, position)
                    else:
                        found = reading.check_indexed(key, position)
                        assert found == (StreamId("Account", "alice"), 2)
            with pytest.raises(CorruptRecord, match="not in the log"):
                reading.stored(absent, reading.data(absent) or b"", found)


async def test_hole_in_a_stream_is_told(tmp_path: Path) -> None:
    async with await filled(tmp_path) as store:
        with file_changes(store, "streams") as txn:
            assert txn.delete(b"alice\0Account\0" + u64(2))
        with pytest.raises(CorruptRecord, match="Account<alice> version 2 of .* is missing from the index"):
            await store.get_events("alice")


async def test_damaged_checkpoints_and_dead_letters_are_told(tmp_path: Path) -> None:
    async with await filled(tmp_path) as store:
        await store.save_progress({"mail": 3}, [DeadLetter("mail", 2, "Noted", 1, "E", "T", NOW, NOW)])
        sound = value_in_file(store, "checkpoints", b"mail")
        change_value(store, "checkpoints", b"mail", u64(5) + sound[8:])
        with pytest.raises(CorruptRecord, match="checkpoint b'mail'"):
            await store.checkpoints()
        change_value(store, "dead_letters", b"mail\0" + u64(2), b"\xc0")
        with pytest.raises(CorruptRecord, match="dead letter b'mail"):
            await store.dead_letters()


READ = """
import asyncio, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import UnoError
from uno_actors.testing.contract.events import Noted

async def main():
    wrong = 0
    try:
        store = LmdbEventStore(sys.argv[1])
    except UnoError:
        print("told")
        return
    async with store:
        told = False
        for of in ("alice", "bob"):
            try:
                texts = [event.text for event in await store.get_events(of, aggregate_type="Account")]
                if texts != [f"to {of} {number}" for number in range(len(texts))]:
                    print("wrong", texts)
            except UnoError:
                told = True
        try:
            async for position, event in store.read_all():
                if event.text != f"to {('alice', 'bob')[(position - 1) % 2]} {(position - 1) // 2}":
                    print("wrong", position, event.text)
        except UnoError:
            told = True
        print("told" if told else "unseen")

asyncio.run(main())
"""


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_no_flipped_byte_anywhere_in_the_file_shows_a_wrong_event(tmp_path: Path) -> None:
    """What LMDB makes of its own damaged pages is counted, not promised: only that no wrong event is shown."""
    await (await filled(tmp_path / "whole")).close()
    data = (tmp_path / "whole" / "data.mdb").read_bytes()
    chance = random.Random(7)
    counts: dict[str, int] = {}

    async def flip(number: int) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        damaged = bytearray(data)
        used = [at for at, byte in enumerate(data) if byte]
        damaged[chance.choice(used)] ^= 1 << chance.randrange(8)
        (place / "data.mdb").write_bytes(damaged)
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ, str(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, errors = await run.communicate()
        assert b"wrong" not in out, (number, out)
        last = out.decode().split()[-1:] if run.returncode == 0 else [f"exit {run.returncode}"]
        if run.returncode == 1:
            last = [errors.decode().splitlines()[-1]]
        counts[last[0]] = counts.get(last[0], 0) + 1

    for start in range(0, 400, 2):
        await asyncio.gather(flip(start), flip(start + 1))
    print(counts)
    assert counts["told"] > 100
