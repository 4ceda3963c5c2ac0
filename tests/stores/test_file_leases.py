"""Leases on one machine: the rule by which a name is free, and programs of earlier versions beside this one."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import holder_beats, holder_checks
from tests.stores.test_lmdb_processes import line, program, tell
from tests.waiting import until
from uno_actors import open_store
from uno_stores.file_leases import FileLeases, Row, taken_by
from uno_stores.node_files import NodeDirectory, State

# --- the rule ----------------------------------------------------------------------------------------------

STATES: dict[str, State] = {"w": "works", "h": "hangs", "d": "dead"}


@pytest.mark.parametrize(
    ("row", "is_locked", "after"),
    [
        (Row(), True, Row(1, "us", "us")),
        (Row(), False, None),  # a program of an earlier version has it
        (Row(7, "", ""), True, Row(8, "us", "us")),
        (Row(7, "d", "d"), True, Row(8, "us", "us")),
        (Row(7, "h", "h"), True, Row(8, "us", "us")),
        (Row(7, "w", "w"), True, None),
        (Row(7, "w", "w"), False, None),
        (Row(7, "w", "h"), False, None),
        (Row(7, "h", "h"), False, Row(8, "us", "h")),  # the lock is that of the one that hangs
        (Row(7, "d", "h"), False, Row(8, "us", "h")),
        (Row(7, "", "h"), False, Row(8, "us", "h")),
        (Row(7, "", "w"), False, Row(8, "us", "w")),  # it came back, and keeps the lock
        (Row(7, "h", "d"), False, None),  # the keeper has ended: an earlier version was faster
        (Row(7, "d", "d"), False, None),
        (Row(7, "d", ""), False, None),
        (Row(7, "us", "us"), True, Row(8, "us", "us")),  # its release was not written
        (Row(7, "us", "us"), False, None),
    ],
    ids=str,
)
def test_a_name_is_free_by_its_row_and_the_files_of_nodes(
    row: Row, is_locked: bool, after: Row | None
) -> None:
    assert taken_by("us", row, STATES.__getitem__, is_locked=is_locked) == after


# --- many holders, by chance -------------------------------------------------------------------------------


class World:
    """Rows in memory, the locks of one kernel, and a clock that is moved by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self.locked: str | None = None  # who has the lock of earlier versions for the one name
        self.now = 0.0

    async def read(self, names: Iterable[str]) -> Mapping[str, Row]:
        return {name: self.rows[name] for name in names if name in self.rows}

    async def swap(self, name: str, old: Row, new: Row) -> bool:
        if self.rows.get(name, Row()) != old:
            return False
        self.rows[name] = new
        return True


class Locks:
    def __init__(self, world: World, process: str) -> None:
        self.world, self.process = world, process

    def take(self, name: str) -> bool:
        if self.world.locked is not None:
            return False
        self.world.locked = self.process
        return True

    def release(self, name: str) -> None:
        assert self.world.locked == self.process
        self.world.locked = None


class Holder:
    """A process of this version, which may hang: then its beats stop and its checks too."""

    def __init__(self, world: World, process: str) -> None:
        self.world, self.process, self.hangs = world, process, False
        self.nodes = NodeDirectory(world.path, lambda: world.now)
        self.lost = False
        self.leases = FileLeases(
            world, self.nodes, Locks(world, process), lease_time=9.0, lost=self._lose, renewed=self._renewed
        )

    def _lose(self, name: str) -> None:
        self.lost = True

    def _renewed(self, name: str, until: float) -> None:
        assert not self.hangs

    async def act(self, what: str) -> None:
        leases = self.leases
        if what == "hang":
            self.hangs = True
        elif what == "resume":
            self.hangs = False
        if self.hangs:
            return
        holder_beats(leases, self.nodes, 9.0)
        if what == "take":
            if self.lost:
                await leases.release("mail")
                self.lost = False
            await leases.take("mail")
        elif what == "release":
            await leases.release("mail")
            self.lost = False
        await holder_checks(leases)

    def acts(self) -> bool:
        """Whether what it writes is accepted."""
        taken = self.leases.held.get("mail")
        return taken is not None and self.world.rows["mail"].taken == taken

    def end(self) -> None:
        self.leases.stop()
        self.leases.close()
        self.nodes.close()


ACTS = ["take", "take", "release", "hang", "resume", "work", "die"]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ACTS)), max_size=60))
async def test_a_name_has_one_holder_whose_writes_are_accepted_and_none_beside_an_earlier_version(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, str]]
) -> None:
    world = World(tmp_path_factory.mktemp("nodes"))
    holders = [Holder(world, f"p{number}") for number in range(3)]
    made = 3
    try:
        for who, what in acts:
            world.now += 1.0
            if who == 3:  # a program of an earlier version, which knows the lock alone
                if what == "take" and world.locked is None:
                    world.locked = "earlier"
                elif what in ("release", "die") and world.locked == "earlier":
                    world.locked = None
            elif what == "die":
                holders[who].end()
                if world.locked == holders[who].process:
                    world.locked = None
                holders[who] = Holder(world, f"p{made}")
                made += 1
            else:
                await holders[who].act(what)
            for each in holders:  # those that work look at once; see below for the time between
                await each.act("work")
            acting = [each.process for each in holders if each.acts()]
            assert len(acting) <= 1
            if world.locked == "earlier":
                working = [each.process for each in holders if each.acts() and not each.hangs]
                assert not working
    finally:
        for each in holders:
            each.end()


async def test_a_name_whose_holder_hangs_is_had_within_two_times_the_time_of_its_lease(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    hanging, standby = Holder(world, "a"), Holder(world, "b")
    try:
        await hanging.act("take")
        await hanging.act("hang")
        while not standby.acts():
            await standby.act("take")
            world.now += 1.0
        assert 9 <= world.now <= 18
        await hanging.act("resume")
        assert hanging.lost
        assert not hanging.acts()
    finally:
        hanging.end()
        standby.end()


# --- programs of earlier versions --------------------------------------------------------------------------

EARLIER = """
import sys
from pathlib import Path
from uno_stores.guards import LeaseFile

leases = LeaseFile(Path(sys.argv[1]))
for command in sys.stdin:
    if command == "take\\n":
        print("taken" if leases.take("mail") else "none", flush=True)
    else:
        leases.release("mail")
        print("released", flush=True)
"""


@pytest.fixture(params=["lmdb", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The URL of a store, and the file with the locks of earlier versions."""
    if request.param == "lmdb":
        return f"lmdb:{tmp_path}", tmp_path / "leases.lock"
    return f"sqlite+aiosqlite:///{tmp_path}/store.db", tmp_path / "store.db-leases"


async def test_a_name_is_had_by_one_program_of_either_version(place: tuple[str, Path]) -> None:
    url, locks = place
    async with open_store(url) as store, program(EARLIER, locks) as earlier:
        await store.save_progress({"audit": 1})
        await tell(earlier, "take")
        assert await line(earlier) == "taken"
        assert await store.is_leased("mail")
        assert await store.lease("mail") is None
        await tell(earlier, "release")
        assert await line(earlier) == "released"
        assert not await store.is_leased("mail")
        lease = await store.lease("mail")
        assert lease is not None
        await tell(earlier, "take")
        assert await line(earlier) == "none"
        await lease.release()
        await tell(earlier, "take")
        assert await line(earlier) == "taken"
        earlier.kill()
        await earlier.wait()
        assert await store.lease("mail") is not None


async def test_a_cancelled_taking_leaves_the_name_to_others(place: tuple[str, Path]) -> None:
    url, _ = place
    async with open_store(url) as store:
        await store.save_progress({"audit": 1})
        for turns in range(12):
            taking = asyncio.ensure_future(store.lease("mail"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if taking.cancel():
                await asyncio.wait([taking])
            if taking.cancelled():
                lease = None
                async with asyncio.timeout(10):
                    while (lease := await store.lease("mail")) is None:  # noqa: ASYNC110 - it is not told
                        await asyncio.sleep(0.01)
            else:
                lease = taking.result()
            assert lease is not None
            await lease.release()


async def test_a_store_whose_last_lease_was_released_leaves_no_file(tmp_path: Path) -> None:
    async with open_store(f"lmdb:{tmp_path}?lease_time=0.3") as store:
        lease = await store.lease("mail")
        assert lease is not None
        assert [*(tmp_path / "nodes").iterdir()]
        await lease.release()
        await until(lambda: not [*(tmp_path / "nodes").iterdir()])
