"""Damaged keys in an LMDB store: each read ends, with the right answer or an error that is ours."""

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lmdb_pages import Part, parts
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CorruptRecord, StoreFormatError, UnoError
from uno_actors.store.codec import StreamId
from uno_actors.store.maintenance import Fault, Verified
from uno_actors.store.records import DeadLetter, Snapshot, ViewChange
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore

REGISTRY = EventRegistry([Noted])
NOW = datetime(2024, 6, 1, tzinfo=UTC)
LENGTHS = {f"box-{number}": number % 5 + 1 for number in range(0, 240, 2)}
"""How many events each aggregate has; those of odd numbers have none."""
ABSENT = ("a", "box-1", "box-101", "box-11", "box-239", "zoo")
HANDLERS = ("audit", "mail", "sums")
APPENDED = ("box-0", "box-8", "box-100", "box-238", "box-101", "zoo")
"""To which the damaged store is asked to append."""


def noted(aggregate_id: str, text: str) -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Box", text=text)


async def fill(path: Path) -> None:
    async with LmdbEventStore(path, REGISTRY) as store:
        for turn in range(5):
            names = [name for name, length in LENGTHS.items() if length > turn]
            await store.append(*[noted(name, f"{name} {turn} " + "." * 60) for name in names])
        letters = [
            DeadLetter(handler, position, "Noted", 1, "E", "T" * 200, NOW, NOW)
            for handler in HANDLERS
            for position in range(1, 20)
        ]
        changes = [
            ViewChange(handler, b"%03d" % n, b"." * 50) for handler in HANDLERS for n in range(0, 90, 2)
        ]
        checkpoints = dict.fromkeys([*HANDLERS, *(f"handler {n}" for n in range(90))], 7)
        await store.save_progress(checkpoints, letters, changes)
        streams = [StreamId("Box", name) for name in list(LENGTHS)[::3]]
        await store.save_snapshots([Snapshot(stream, 1, 1, b"." * 90, NOW) for stream in streams])


Question = Callable[[LmdbEventStore], Awaitable[Any]]


async def records_of(store: LmdbEventStore, after: int = 0) -> list[Any]:
    return [record async for record in store.read_records(after)]


def questions() -> dict[str, Question]:
    """What can be asked of the store, by a name."""
    asked: dict[str, Question] = {
        "all": records_of,
        "some": lambda store: records_of(store, 300),
        "a page": lambda store: store.read_log(41, 7),
        "behind the end": lambda store: store.read_log(10_000),
        "end": lambda store: store.last_position(),
        "checkpoints": lambda store: store.checkpoints(),
        "letters": lambda store: store.dead_letters(),
    }
    for handler in (*HANDLERS, "nobody"):
        asked[f"letters of {handler}"] = partial(LmdbEventStore.dead_letters, handler=handler)
        asked[f"view {handler}"] = partial(LmdbEventStore.read_view, view=handler, limit=None)
        for key in (b"000", b"044", b"045", b"088", b"999"):
            one = partial(LmdbEventStore.read_view, view=handler, start=key, end=key + b"\0")
            asked[f"view {handler} {key!r}"] = one
            asked[f"view {handler} from {key!r}"] = partial(
                LmdbEventStore.read_view, view=handler, start=key, limit=3
            )
    for name in (*LENGTHS, *ABSENT):
        stream = StreamId("Box", name)
        asked[f"types of {name}"] = partial(LmdbEventStore.aggregate_types, aggregate_id=name)
        asked[f"version of {name}"] = partial(LmdbEventStore.last_version, stream=stream)
        asked[f"snapshot of {name}"] = partial(LmdbEventStore.read_snapshot, stream=stream)
        for after in (0, 2, 5, 9):
            asked[f"{name} after {after}"] = partial(
                LmdbEventStore.read_stream, stream=stream, after_version=after
            )
        asked[f"events of {name}"] = partial(LmdbEventStore.get_events, aggregate_id=name)
    return asked


async def answers(path: Path, asked: dict[str, Question]) -> dict[str, Any]:
    """The answer to each question; ``UnoError`` in place of one that is an error of ours."""
    try:
        store = LmdbEventStore(path, REGISTRY)
    except StoreFormatError:
        return dict.fromkeys(["verify", *asked], UnoError)
    found: dict[str, Any] = {}
    async with store:
        for name, question in asked.items():
            try:
                found[name] = await question(store)
            except UnoError:
                found[name] = UnoError
        found["verify"] = await store.verify()
        for name in APPENDED:
            found[f"append to {name}"] = await append_and_read(store, name)
    return found


async def append_and_read(store: LmdbEventStore, name: str) -> Any:
    """The texts of the stream after one more event; ``UnoError`` if it, or its reading, is refused."""
    try:
        await store.append(noted(name, "more"), expected_version=LENGTHS.get(name, 0))
        events = await store.get_events(name, aggregate_type="Box")
    except UnoError:
        return UnoError
    return [event.text for event in events if isinstance(event, Noted)]


class Whole(NamedTuple):
    """A store, its file, what is in the file, and the right answers."""

    path: Path
    data: bytes
    parts: list[Part]
    right: dict[str, Any]


def damaged(data: bytes, part: Part, chance: random.Random) -> bytes:
    """``data`` with one key or value changed in one of the ways in which that happens."""
    old = data[part.start : part.start + part.size]
    bit = bytearray(old)
    bit[chance.randrange(part.size)] ^= 1 << chance.randrange(8)
    cut = chance.randrange(part.size)
    ways = [bytes(bit), bytes(bit), chance.randbytes(part.size), b"\xff" * part.size, bytes(part.size)]
    new = chance.choice([*ways, old[:cut] + b"\xff" * (part.size - cut)])
    return data[: part.start] + new + data[part.start + part.size :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A store with several pages in each database."""
    path = tmp_path_factory.mktemp("whole")
    asyncio.run(fill(path))
    data, found = (path / "data.mdb").read_bytes(), parts(path)
    right = asyncio.run(answers(path, questions()))
    assert UnoError not in right.values()
    assert isinstance(right["verify"], Verified)
    assert {part.database for part in found if part.kind == "separator"} >= {"log", "streams", "views"}
    return Whole(path, data, found, right)


def look_at(whole: Whole, part: Part, data: bytes) -> None:
    """Ask a copy with ``data`` everything."""
    copy = whole.path.with_name("damaged")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    (copy / "data.mdb").write_bytes(data)
    found = asyncio.run(answers(copy, questions()))
    verified = found.pop("verify")
    wrong = {name: found[name] for name in found if found[name] not in (whole.right[name], UnoError)}
    assert not wrong, part
    # A false separator may lead to the right page all the same.
    if part.kind != "separator":
        assert verified is UnoError or isinstance(verified, Fault), part


def damage_and_look(whole: Whole, seed: int) -> None:
    chance = random.Random(seed)
    part = chance.choice([part for part in whole.parts if part.kind != "value" or chance.random() < 0.2])
    data = damaged(whole.data, part, chance)
    if data != whole.data:
        look_at(whole, part, data)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_reads_of_a_store_with_a_damaged_key_are_right_or_refused(whole: Whole, seed: int) -> None:
    damage_and_look(whole, seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=5000, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_many_damaged_keys_are_told(whole: Whole, seed: int) -> None:
    damage_and_look(whole, seed)


def indexed(name: str, version: int) -> bytes:
    return f"{name}\0Box\0".encode() + version.to_bytes(8)


class FalseKey(NamedTuple):
    """A key that was put in place of another; a question whose error tells of it, and a part of that error."""

    database: str
    old: bytes
    new: bytes
    question: str
    text: str


HUGE = 2**64 - 1
KEYS = {
    "the last version of a stream is a huge one": FalseKey(
        "streams", indexed("box-98", 4), indexed("box-98", HUGE), "types of box-98", f"version {HUGE}"
    ),
    "the only version of a stream is a later one": FalseKey(
        "streams", indexed("box-0", 1), indexed("box-0", 7), "version of box-0", "Box<box-0> version 7"
    ),
    "a stream has another's name": FalseKey(
        "streams", indexed("box-0", 1), indexed("box-1", 1), "events of box-1", "it is that of Box<box-0>"
    ),
    "a stream is not where it is looked for": FalseKey(
        "streams", indexed("box-0", 1), indexed("box-1", 1), "types of box-0", "it is that of Box<box-0>"
    ),
    "a key is not UTF-8": FalseKey(
        "streams",
        indexed("box-0", 1),
        b"b\xffx" + indexed("box-0", 1)[3:],
        "types of box-0",
        "names no stream",
    ),
    "the last position is a huge one": FalseKey(
        "log", (360).to_bytes(8), b"\xff" * 8, "end", f"its last position is {HUGE}, and it has 360 entries"
    ),
    "the last position is read": FalseKey(
        "log", (360).to_bytes(8), b"\xff" * 8, "all", "position 360.*missing from the log"
    ),
    "a position is missing": FalseKey(
        "log", (300).to_bytes(8), (9).to_bytes(8), "all", "position 300.*missing from the log"
    ),
    "a checkpoint has no name": FalseKey("checkpoints", b"audit", b"\xff" * 5, "checkpoints", "checkpoint"),
    "a dead letter is another handler's": FalseKey(
        "dead_letters",
        b"mail\0" + bytes(7) + b"\1",
        b"nail\0" + bytes(7) + b"\1",
        "letters of mail",
        "letter",
    ),
    "an entry of a view is another's": FalseKey(
        "views", b"sums\x00088", b"sums\x00099", "view sums b'088'", "of the view sums"
    ),
    "a snapshot is another's": FalseKey(
        "snapshots", b"box-0\0Box\0", b"box-1\0Box\0", "snapshot of box-0", "snapshot"
    ),
}


@pytest.mark.parametrize("false", KEYS.values(), ids=KEYS)
async def test_false_key_is_told_with_its_place(whole: Whole, tmp_path: Path, false: FalseKey) -> None:
    part = key_part(whole, false.database, false.old)
    (tmp_path / "data.mdb").write_bytes(
        whole.data[: part.start] + false.new + whole.data[part.start + part.size :]
    )
    async with LmdbEventStore(tmp_path, REGISTRY) as store:
        with pytest.raises(CorruptRecord, match=false.text) as caught:
            await questions()[false.question](store)
        assert str(tmp_path) in str(caught.value)
        assert isinstance(await store.verify(), Fault)


def key_part(whole: Whole, database: str, key: bytes) -> Part:
    keys = [part for part in whole.parts if (part.database, part.kind) == (database, "key")]
    (part,) = [part for part in keys if whole.data[part.start : part.start + part.size] == key]
    return part


async def test_database_with_a_damaged_name_is_not_taken_for_an_empty_one(
    whole: Whole, tmp_path: Path
) -> None:
    part = key_part(whole, "main", b"log")
    (tmp_path / "data.mdb").write_bytes(whole.data[: part.start] + b"lof" + whole.data[part.start + 3 :])
    with pytest.raises(StoreFormatError, match="a database is named b'lof'"):
        LmdbEventStore(tmp_path, REGISTRY)


async def test_stream_beside_one_whose_record_is_damaged_can_be_read(whole: Whole, tmp_path: Path) -> None:
    """The record is damaged and not the key that leads to it: the neighbours are none the worse."""
    values = [part for part in whole.parts if (part.database, part.kind) == ("log", "value")]
    (part,) = [part for part in values if b"box-100 0" in whole.data[part.start : part.start + part.size]]
    at = part.start + part.size // 2
    (tmp_path / "data.mdb").write_bytes(whole.data[:at] + b"\xff" + whole.data[at + 1 :])
    found = await answers(
        tmp_path, {name: questions()[name] for name in ("events of box-102", "events of box-101")}
    )
    assert found["events of box-102"] == whole.right["events of box-102"]
    assert found["events of box-101"] == []
