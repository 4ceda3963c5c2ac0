"""kill -9 at random moments: everything acknowledged is recorded once, and handlers resume where they were."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash_worker import Account, Counts, Deposit, Forked, PartDeposited, Thanked, store_url
from uno_actors import ActorSystem, published_view
from uno_actors.handlers.view import ViewReader, entry_of
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord
from uno_stores import LmdbEventStore

HANDLERS = ("async", "sync", "flaky", "abreast")
IN_ORDER = ("async", "sync", "flaky")


@dataclass
class Heard:
    """The output of the workers of all rounds."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # token and reply
    handled: dict[str, list[list[int]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by handler, by round
    together: list[tuple[int, int]] = field(default_factory=list)  # how many, and the last position
    lines: int = 0

    def listen(self, line: str) -> None:
        self.lines += 1
        kind, *words = line.split()
        if kind == "ack":
            self.acknowledged[words[0]] = int(words[1])
        elif kind == "handled":
            self.handled[words[0]][-1].append(int(words[1]))
        elif kind == "together":
            self.together.append((int(words[1]), int(words[2])))


def run_until_killed(directory: Path, number: int, heard: Heard, lines: int) -> None:
    """Start a worker and kill it after it has printed this many lines; lines still in the pipe count too."""
    for name in HANDLERS:
        heard.handled[name].append([])
    with Forked(directory, str(number)) as worker:
        for count, line in enumerate(worker.stdout):
            heard.listen(line)
            if count == lines:
                worker.kill()
    assert worker.returncode == -9


def run_to_the_end(directory: Path, heard: Heard) -> None:
    for name in HANDLERS:
        heard.handled[name].append([])
    with Forked(directory, "last", finish=True) as worker:
        said = [line for line in worker.stdout if heard.listen(line) is None]
    assert worker.returncode == 0
    assert said[-1] == "settled\n"


@dataclass
class Found:
    """The contents of the store."""

    records: list[StoredRecord]
    deposits: dict[int, PartDeposited]  # by position
    thanked: Counter[str]
    checkpoints: dict[str, int]


async def read_everything(place: Path | str) -> Found:
    async with open_store(store_url(place)) as store:
        records = [stored async for stored in store.read_records()]
        found = Found(records, {}, Counter(), await store.checkpoints())
        async for position, event in store.read_all(event_type=(PartDeposited, Thanked)):
            if isinstance(event, PartDeposited):
                found.deposits[position] = event
            else:
                found.thanked[event.aggregate_id or ""] += 1
        assert await store.dead_letters() == []
        await check_view(store, found)
        return found


async def check_view(store: EventStore, found: Found) -> None:
    """Every view, published or not, has each event up to its checkpoint once and no other."""
    writing = (await entry_of(store, "counts")).writing
    if writing is None:
        return
    counted = {
        position: event
        for position, event in found.deposits.items()
        if position <= found.checkpoints[writing]
    }
    view = ViewReader(store, writing, {})
    assert await view.range("position") == [(("position", position), 1) for position in counted]
    accounts = Counter(event.aggregate_id for event in counted.values())
    assert await view.range("account") == [
        (("account", name or ""), accounts[name]) for name in sorted(accounts, key=str)
    ]


async def check(place: Path | str, heard: Heard) -> Found:
    """Every acknowledged command is recorded whole and once; no half, no gap in versions or positions."""
    found = await read_everything(place)
    records, events = found.records, found.deposits.values()
    assert [stored.position for stored in records] == list(range(1, len(records) + 1))
    versions: dict[str | None, list[int | None]] = defaultdict(list)
    parts: dict[str, list[int]] = defaultdict(list)
    for event in events:
        versions[event.aggregate_id].append(event.aggregate_version)
        parts[event.token].append(event.part)
        assert event.part < event.parts
    for stream in versions.values():
        assert stream == list(range(1, len(stream) + 1))
    whole = {event.token: list(range(event.parts)) for event in events}
    assert parts == whole
    assert heard.acknowledged.keys() <= parts.keys()
    assert all(0 <= position <= len(records) for position in found.checkpoints.values())
    assert set(found.thanked.values()) <= {1}
    return found


def check_handlers(heard: Heard, found: Found) -> None:
    """Each handler has seen every event; within one run in log order, across runs again only near a crash."""
    positions = list(found.deposits)
    for name in HANDLERS:
        rounds = heard.handled[name]
        for handled in rounds:
            if name in IN_ORDER:
                assert handled == sorted(set(handled)), name
            else:
                check_order_of_each_account(handled, found)
        times = Counter(position for handled in rounds for position in handled)
        assert times.keys() == set(positions), name
    place = {position: number for number, position in enumerate(positions)}
    together = {
        positions[number]
        for count, last in heard.together
        for number in range(place[last] - count + 1, place[last] + 1)
    }
    assert together == set(positions)
    assert max(count for count, _ in heard.together) > 1
    assert found.thanked.keys() == {
        event.token for event in found.deposits.values() if event.token.endswith("0")
    }


def check_order_of_each_account(handled: list[int], found: Found) -> None:
    accounts: dict[str | None, list[int]] = defaultdict(list)
    for position in handled:
        accounts[found.deposits[position].aggregate_id].append(position)
    for seen in accounts.values():
        assert seen == sorted(set(seen))


async def crash(directory: Path, rounds: int, chance: random.Random) -> None:
    heard = Heard()
    for number in range(rounds):
        run_until_killed(
            directory,
            number,
            heard,
            lines=chance.choice([0, 1, chance.randrange(40), chance.randrange(3000)]),
        )
        await check(directory, heard)
    run_to_the_end(directory, heard)
    found = await check(directory, heard)
    check_handlers(heard, found)
    async with LmdbEventStore(directory) as store:
        assert len(await published_view(store, Counts).range("position")) == len(found.deposits)
    assert heard.acknowledged, "no round lived long enough to acknowledge anything"


async def test_a_command_sent_again_after_a_kill_gets_the_recorded_reply(tmp_path: Path) -> None:
    """Both acknowledged commands and those that were recorded but not acknowledged any more."""
    heard = Heard()
    run_until_killed(tmp_path / "store", 0, heard, lines=800)
    found = await check(tmp_path / "store", heard)
    recorded: dict[str, tuple[str, int, int]] = {}  # by token
    async with LmdbEventStore(tmp_path / "store") as store:
        for event in found.deposits.values():
            recorded[event.token] = (event.aggregate_id or "", event.aggregate_version or 0, event.parts)
        async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
            for token, (account, version, parts) in list(recorded.items())[::-1][:200]:
                command = Deposit(command_id=token, token=token, parts=parts)
                reply = await system.aggregate(Account, account).ask(command)
                assert reply == version == heard.acknowledged.get(token, version)
            assert system.statistics().repeated == min(200, len(recorded))
        assert await store.last_position() == len(found.records)


@pytest.mark.timeout(120)
async def test_twenty_kills_lose_nothing_acknowledged_and_handlers_resume(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await crash(tmp_path / "store", 20, random.Random(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_three_hundred_kills_lose_nothing_acknowledged_and_handlers_resume(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await crash(tmp_path / "store", 300, random.Random(seed))
