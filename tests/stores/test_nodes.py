"""Which nodes work on a store: what is announced, and how the nodes of real processes end, hang and come back."""

import asyncio
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.new_stores import new_store_url
from tests.pooler import pooled
from tests.postgres import postgres
from tests.stores.test_lmdb_files import NAMESPACE, in_namespaces
from tests.stores.test_lmdb_processes import line, program
from uno_actors import StoreUnavailable, open_store
from uno_actors.clock import SystemClock
from uno_actors.store.member_codec import members_of, packed, unpacked
from uno_actors.store.membership import Member, Membership
from uno_actors.store.port import EventStore
from uno_actors.testing.contract.membership import FULL
from uno_stores.node_files import Beats, Found, NodeDirectory, NodeFile, file_name, look_at
from uno_stores.sql import DatabaseEventStore

# --- what is announced -------------------------------------------------------------------------------------


def test_an_announcement_of_a_later_version_is_read_without_what_is_new() -> None:
    later = {**asdict(FULL), "zone": "b", "weights": {"Account": [1, 2]}}
    assert unpacked(msgpack.packb(later)) == FULL


def test_an_announcement_of_an_earlier_version_has_the_defaults_of_what_it_lacks() -> None:
    assert unpacked(msgpack.packb({"id": "a", "name": "one"})) == Member(id="a", name="one")


@pytest.mark.parametrize(
    "announcement",
    [b"", b"\xc1", msgpack.packb(7), msgpack.packb({"name": "one"}), msgpack.packb({"id": "a", "name": 7}),
     msgpack.packb({"id": "a", "name": "", "commands": [["Account"]]}), packed(FULL)[:-1]],
    ids=["empty", "no msgpack", "a number", "no id", "a name that is a number", "half a command", "cut off"],
)  # fmt: skip
def test_an_announcement_that_cannot_be_read_hides_its_own_node_only(announcement: bytes) -> None:
    with pytest.raises(ValueError, match="is not an announcement of a node"):
        unpacked(announcement)
    assert members_of([packed(FULL), announcement]) == (FULL,)


# --- the rule by which a node hangs ------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=30))
def test_a_node_hangs_when_its_beat_was_not_seen_to_change_for_its_seconds(
    looks: list[tuple[float, bool]],
) -> None:
    beats, now, beat = Beats(), 1000.0, 0
    changed_at: float | None = None
    for pause, beats_meanwhile in looks:
        now += pause
        beat += beats_meanwhile
        if beats_meanwhile or changed_at is None:
            changed_at = now
        assert beats.hangs("a", Found(beat, 5.0, b""), now) == (now - changed_at >= 5.0)
        assert not beats.hangs("other", Found(int(now * 1000), 5.0, b""), now)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "ünì \N{ROCKET}", "x" * 300, "con ", "a\0b", "Node-7.b"]
)
def test_the_file_of_any_node_is_in_its_directory(name: str, tmp_path: Path) -> None:
    node = NodeFile(tmp_path / file_name(name), 1.0)
    try:
        assert [each.name for each in tmp_path.iterdir()] == [file_name(name)]
        assert node.is_in_place
    finally:
        node.close()
    assert not [*tmp_path.iterdir()]


def test_files_of_nodes_are_for_their_owner_only(tmp_path: Path) -> None:
    nodes = NodeDirectory(tmp_path / "nodes")
    nodes.made("a", 1.0).announce(b"x")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "nodes", tmp_path / "nodes" / "a")]
    assert modes == [0o700, 0o600]
    nodes.close()


def test_a_file_that_was_removed_is_made_again_and_one_that_is_left_is_removed(tmp_path: Path) -> None:
    ours, theirs = NodeDirectory(tmp_path), NodeDirectory(tmp_path)
    ours.made("a", 1.0).announce(b"one")
    (tmp_path / "a").unlink()
    assert theirs.working() == {}
    ours.made("a", 1.0).announce(b"two")
    (tmp_path / "left").write_bytes(b"of a process that was killed")
    assert theirs.working() == {"a": b"two"}
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    with pytest.raises(FileExistsError):
        NodeFile(tmp_path / "a", 1.0)
    ours.close()
    assert look_at(tmp_path / "a") is None


def test_a_shorter_announcement_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    nodes = NodeDirectory(tmp_path)
    for announcement in (b"x" * 5000, b"y", b"", b"z" * 70):
        nodes.made("a", 1.0).announce(announcement)
        assert nodes.working() == {"a": announcement}
    nodes.close()


# --- real processes ----------------------------------------------------------------------------------------

NODE = """
import asyncio, sys
from uno_actors import open_store
from uno_actors.clock import SystemClock
from uno_actors.store.membership import Member

async def main():
    async with open_store(sys.argv[1]) as store:
        membership = store.membership(float(sys.argv[3]), SystemClock())
        said = False
        while True:
            members = await membership.announce(Member(id=sys.argv[2], name=""))
            if not said:
                said = True
                print(*(member.id for member in members), flush=True)
            await asyncio.sleep(float(sys.argv[3]) / 3)

asyncio.run(main())
"""
TTL = 1.0


@pytest.fixture(params=["lmdb", "sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


class Observer:
    """A node of this process that looks at the others."""

    def __init__(self, store: EventStore, node: str = "observer") -> None:
        membership = store.membership(60.0, SystemClock())
        assert membership is not None
        self.membership: Membership = membership
        self.me = Member(id=node, name="")

    async def others(self) -> list[str]:
        return [each.id for each in await self.membership.announce(self.me) if each.id != self.me.id]

    async def until(self, *others: str, within: float) -> float:
        """Wait until these are there; how long it took."""
        begun = time.monotonic()
        async with asyncio.timeout(within + 15):  # the machine may be busy
            while await self.others() != [*others]:  # noqa: ASYNC110 - it is not told
                await asyncio.sleep(0.02)
        return time.monotonic() - begun


async def test_a_killed_process_is_gone_at_once_where_the_kernel_knows_and_else_in_its_time(url: str) -> None:
    ttl = TTL if url.startswith("postgres") else 60.0
    async with open_store(url) as store:
        observer = Observer(store)
        await observer.others()
        async with program(NODE, url, "node", ttl) as node:
            assert await line(node) == "node observer"
            assert await observer.others() == ["node"]
            node.kill()
            await node.wait()
            if ttl == TTL:
                await observer.until(within=TTL)
            assert await observer.others() == []


async def test_a_stopped_process_is_gone_in_its_time_and_back_when_it_continues(url: str) -> None:
    async with open_store(url) as store:
        observer = Observer(store)
        async with program(NODE, url, "node", TTL) as node, program(NODE, url, "other", TTL) as other:
            assert "node" in await line(node)
            assert "other" in await line(other)
            await observer.until("node", "other", within=TTL)
            node.send_signal(signal.SIGSTOP)
            try:
                took = await observer.until("other", within=TTL)
                assert took > TTL / 3  # it was not gone before its time
                assert await observer.others() == ["other"]
            finally:
                node.send_signal(signal.SIGCONT)
            await observer.until("node", "other", within=TTL)


async def test_a_node_that_leaves_the_store_to_its_fork_is_gone_when_it_is_killed(tmp_path: Path) -> None:
    """The child has inherited the file, and with it the lock."""
    source = """
import multiprocessing, os, sys, time
from pathlib import Path
from uno_stores.node_files import NodeDirectory
nodes = NodeDirectory(Path(sys.argv[1]))
nodes.made("node", 60.0).announce(b"x")

def live():
    os.close(1)  # which its parent has too: the test reads until all have closed it
    os.close(2)
    time.sleep(60)

child = multiprocessing.get_context("fork").Process(target=live)
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot fork here")
    async with program(source, tmp_path) as node:
        child = int(await line(node))
        try:
            assert NodeDirectory(tmp_path).working() == {"node": b"x"}
            node.kill()
            await node.wait()
            assert NodeDirectory(tmp_path).working() == {}
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)


@in_namespaces
async def test_nodes_of_two_containers_whose_processes_have_the_same_number_see_each_other(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/store.db"

    def container(name: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return program(NODE, url, name, TTL, within=NAMESPACE)

    async with open_store(url) as store:
        observer = Observer(store)
        async with container("one") as one:
            assert await line(one) == "one"
            async with container("two") as two:
                assert await line(two) == "one two"
                assert await observer.others() == ["one", "two"]
                two.kill()
                await two.wait()
                await observer.until("one", within=TTL)


# --- PostgreSQL --------------------------------------------------------------------------------------------


async def test_a_store_of_an_earlier_version_gets_the_table_of_nodes_when_it_is_needed() -> None:
    url = await postgres().new_url()
    user = url.partition("//")[2].partition("@")[0]
    async with open_store(url) as first, open_store(url) as second:
        for store in (first, second):
            await store.save_progress({"mail": 1})
        connection = await postgres().connect(user)
        await connection.execute("DROP TABLE uno_nodes")
        await connection.close()
        one, two = Observer(first, "one"), Observer(second, "two")
        await asyncio.gather(one.others(), two.others())
        assert (await one.others(), await two.others()) == (["two"], ["one"])


async def test_rows_of_nodes_that_ended_long_ago_are_removed() -> None:
    url = await postgres().new_url()
    user = url.partition("//")[2].partition("@")[0]
    async with open_store(url) as store:
        observer = Observer(store)
        await observer.others()
        connection = await postgres().connect(user)
        try:
            insert = "INSERT INTO uno_nodes VALUES ($1, '', clock_timestamp() - make_interval(secs => $2))"
            await connection.execute(insert, "long ago", 61)
            await connection.execute(insert, "just now", 5)
            assert await observer.others() == []
            ids = await connection.fetch("SELECT id FROM uno_nodes ORDER BY id")
            assert [row["id"] for row in ids] == ["just now", "observer"]
        finally:
            await connection.close()


async def test_a_change_is_told_beside_the_log_and_a_renewal_is_not() -> None:
    url = await postgres().new_url()
    async with open_store(url) as store, open_store(url) as other:
        here, there = Observer(store, "here"), Observer(other, "there")
        heard: list[int] = []
        here.membership.when_changed(lambda: heard.append(1))
        await here.others()

        async def told(change: Callable[[], Member]) -> int:
            heard.clear()
            await there.membership.announce(change())
            await here.others()  # what was told before its answer has arrived with it
            return len(heard)

        changed = replace(there.me, leaving=True)
        assert await told(lambda: there.me) == 1
        assert await told(lambda: there.me) == 0
        assert await told(lambda: changed) == 1
        assert await told(lambda: changed) == 0


async def test_nodes_see_each_other_through_a_pooler() -> None:
    async with pooled(postgres(), await postgres().new_url()) as way:
        async with open_store(way) as store, open_store(way) as other:
            here, there = Observer(store, "here"), Observer(other, "there")
            for _ in range(3):
                await asyncio.gather(here.others(), there.others())
            assert (await here.others(), await there.others()) == (["there"], ["here"])
        async with open_store(way) as store:
            assert await Observer(store, "later").others() == []  # closing has withdrawn them


async def test_a_cancelled_announcement_keeps_the_leases_of_the_store() -> None:
    url = await postgres().new_url()
    async with open_store(url) as store:
        observer = Observer(store)
        await observer.others()
        assert await store.lease("mail") is not None
        assert isinstance(store, DatabaseEventStore)
        connects = store.statistics().connects
        for _ in range(20):
            task = asyncio.ensure_future(observer.others())
            await asyncio.sleep(0)
            task.cancel()
        assert await observer.others() == []
        assert store.statistics().connects == connects  # it is the same connection


# --- files -------------------------------------------------------------------------------------------------


async def test_a_node_is_not_announced_where_no_other_process_finds_it(tmp_path: Path) -> None:
    for url, gone in (
        (f"lmdb:{tmp_path / 'store'}", tmp_path / "store" / "data.mdb"),
        (f"sqlite+aiosqlite:///{tmp_path}/store.db", tmp_path / "store.db"),
    ):
        async with open_store(url) as store:
            await store.save_progress({"mail": 1})
            observer = Observer(store)
            await observer.others()
            gone.rename(gone.with_name("away"))
            with pytest.raises(StoreUnavailable, match="was removed"):
                await observer.others()
            gone.with_name("away").rename(gone)
            assert await observer.others() == []


async def test_closing_removes_the_files_of_nodes(tmp_path: Path) -> None:
    for url, directory in (
        (f"lmdb:{tmp_path / 'store'}", tmp_path / "store" / "nodes"),
        (f"sqlite+aiosqlite:///{tmp_path}/store.db", tmp_path / "store.db-nodes"),
    ):
        async with open_store(url) as store:
            await Observer(store).others()
            assert [*directory.iterdir()]
        assert not [*directory.iterdir()]
