"""Several processes on one LMDB store: forks, leases, news of each other's events, and SIGKILL among four."""

import asyncio
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crash_worker import Forked, PartDeposited
from tests.machine import patience
from tests.test_crash import Heard, check
from tests.waiting import calls_of, checkpoint_is, until
from uno_actors import ActorSystem, StoreForked, SystemNotRunning
from uno_actors.domain.events import EventRegistry
from uno_actors.store.records import Append
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore
from uno_stores.lmdb.environment import Environment

REGISTRY = EventRegistry([Noted])
ROOT = Path(__file__).parent.parent.parent


def noted(text: str = "", aggregate_id: str = "a") -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text=text)


def open_at(path: Path) -> LmdbEventStore:
    return LmdbEventStore(path, REGISTRY)


async def texts(store: LmdbEventStore) -> list[str]:
    return [event.text async for _, event in store.read_all() if isinstance(event, Noted)]


@asynccontextmanager
async def program(
    source: str, *arguments: object, within: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a process of its own, whose lines are read and written; killed at the end if it lives.

    Args:
        source: The program.
        *arguments: Of the program.
        within: A command that runs it, such as ``unshare`` with its options.
    """
    process = await asyncio.create_subprocess_exec(
        *within, sys.executable, "-c", source, *map(str, arguments),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def tell(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n".encode())
    await process.stdin.drain()


# --- fork --------------------------------------------------------------------------------------------------


def in_forked_child(work: Callable[[], str]) -> str:
    """What ``work`` returns in a child of this process, which ends without any clean-up."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - to be shown by the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


async def use_inherited(store: LmdbEventStore) -> str:
    """Use the store in every way; the errors, each once."""
    record = Append(())
    uses: list[Callable[[], Any]] = [
        lambda: store.append(noted()),
        lambda: store.commit([record]),
        lambda: store.get_events("a", aggregate_type="Account"),
        store.last_position,
        store.checkpoints,
        lambda: store.save_progress({"mail": 1}),
        lambda: store.lease("mail"),
    ]
    found = set()
    for use in uses:
        try:
            await use()
        except StoreForked as error:
            found.add(str(error))
        else:
            found.add("no error")
    await store.close()
    return "\n".join(found)


def in_new_loop(work: Callable[[], Any]) -> str:
    result: list[str] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(work())))
    thread.start()
    thread.join(patience(20))
    return result[0]


async def test_forked_child_is_told_at_once_and_the_parent_is_unharmed(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("before"))
        assert await store.lease("mail") is not None
        said = in_forked_child(lambda: in_new_loop(lambda: use_inherited(store)))
        assert "was opened before this process was forked" in said
        assert "open it again here" in said
        assert "\n" not in said
        await store.append(noted("after"), expected_version=1)
        assert await texts(store) == ["before", "after"]
        async with program(TAKE_LEASE, tmp_path) as other:
            assert await line(other) == "none"  # the end of the child has not freed what its parent has


async def test_forked_child_opens_the_store_for_itself(tmp_path: Path) -> None:
    async def open_and_append() -> str:
        async with open_at(tmp_path) as own:
            await own.append(noted("child"), expected_version=1)
            return str(await texts(own))

    async with open_at(tmp_path) as store:
        await store.append(noted("parent"))
        assert in_forked_child(lambda: in_new_loop(open_and_append)) == "['parent', 'child']"
        await store.append(noted("parent"), expected_version=2)
        assert await texts(store) == ["parent", "child", "parent"]


async def test_forks_among_writes_and_reads_harm_neither_side(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        stop = asyncio.Event()
        written = 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                await store.append(noted(f"{written}"))
                written += 1

        writer = asyncio.create_task(write())
        for number in range(10):
            await until(lambda goal=3 * number: written > goal)

            async def append(number: int = number) -> str:
                async with open_at(tmp_path) as own:
                    await own.append(noted(f"child {number}", "b"))
                return "done"

            assert await asyncio.to_thread(in_forked_child, lambda use=append: in_new_loop(use)) == "done"
        stop.set()
        await writer
        found = await texts(store)
        assert [text for text in found if "child" not in text] == [f"{n}" for n in range(written)]
        assert [text for text in found if "child" in text] == [f"child {n}" for n in range(10)]


async def test_process_of_multiprocessing_that_forks_is_told(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        context = multiprocessing.get_context("fork")
        answers = context.Queue()

        def work() -> None:
            answers.put(in_new_loop(lambda: use_inherited(store)))

        process = context.Process(target=work)
        process.start()
        said = await asyncio.to_thread(answers.get, timeout=patience(20))
        await asyncio.to_thread(process.join)
        assert "was opened before this process was forked" in said


async def test_forked_child_cannot_use_the_system_of_its_parent(tmp_path: Path) -> None:
    async with ActorSystem(open_at(tmp_path), aggregates=[], handlers=[]) as system:

        def use() -> str:
            with pytest.raises(SystemNotRunning) as caught:
                system.actor("somebody")
            return str(caught.value)

        assert "parent of this forked process; start one here" in in_forked_child(use)
        assert system.actor("somebody") is None


# --- leases ------------------------------------------------------------------------------------------------

TAKE_LEASE = """
import asyncio, os, sys
from uno_stores.lmdb import LmdbEventStore

async def main():
    async with LmdbEventStore(sys.argv[1]) as store:
        lease = await store.lease("mail")
        print("none" if lease is None else "taken", flush=True)
        for command in sys.stdin:
            if command == "release\\n":
                await lease.release()
                print("released", flush=True)
            elif command == "fork\\n":
                if not os.fork():
                    os.close(1)
                    sys.stdin.read()  # lives on after its parent
                    os._exit(0)
                print("forked", flush=True)

asyncio.run(main())
"""


async def test_lease_is_had_by_one_process_and_given_back(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store, program(TAKE_LEASE, tmp_path) as other:
        assert await line(other) == "taken"
        assert await store.lease("mail") is None
        assert await store.lease("audit") is not None
        await tell(other, "release")
        assert await line(other) == "released"
        lease = await store.lease("mail")
        assert lease is not None
        assert await store.lease("mail") is None


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with a child that lives on"])
async def test_lease_dies_with_its_process(tmp_path: Path, forked: bool) -> None:
    async with open_at(tmp_path) as store, program(TAKE_LEASE, tmp_path) as other:
        assert await line(other) == "taken"
        if forked:
            await tell(other, "fork")
            assert await line(other) == "forked"
        assert await store.lease("mail") is None
        other.kill()
        await other.wait()
        assert await store.lease("mail") is not None


async def test_closing_a_store_gives_its_leases_back(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    assert await store.lease("mail") is not None
    async with program(TAKE_LEASE, tmp_path) as other:
        assert await line(other) == "none"
    await store.close()
    async with program(TAKE_LEASE, tmp_path) as other:
        assert await line(other) == "taken"


# --- news of other processes -------------------------------------------------------------------------------

APPEND_ON_DEMAND = """
import asyncio, sys, time
from uno_stores.lmdb import LmdbEventStore
from uno_actors.testing.contract.events import Noted

async def main():
    async with LmdbEventStore(sys.argv[1]) as store:
        print("ready", flush=True)
        for text in sys.stdin:
            await store.append(Noted(aggregate_id="a", aggregate_type="Account", text=text.strip()))
            print(time.monotonic(), flush=True)  # one clock for all processes of the machine

asyncio.run(main())
"""


async def test_events_of_another_process_are_heard_of_within_fifty_milliseconds(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store, program(APPEND_ON_DEMAND, tmp_path) as other:
        assert await line(other) == "ready"
        heard: list[float] = []
        stop = store.on_commit(lambda: heard.append(time.monotonic()))
        delays = []
        for number in range(20):
            await tell(other, f"{number}")
            recorded = float(await line(other))
            await until(lambda count=number + 1: len(heard) >= count)
            delays.append(heard[-1] - recorded)
        assert len(heard) == 20
        assert statistics.median(delays) < patience(0.05), delays
        await store.append(noted("own"))
        assert len(heard) == 21
        await tell(other, "20")
        await line(other)
        await until(lambda: len(heard) >= 22)
        assert len(heard) == 22  # the store's own append was not reported again by what looks for others
        stop()
        await until(lambda: not store.statistics().watching)  # without a listener, the watcher stops


SAVE_A_CHECKPOINT_AND_APPEND = """
import asyncio, sys
from uno_actors import open_store
from uno_actors.testing.contract.events import Noted

async def main():
    async with open_store(f"lmdb:{sys.argv[1]}") as store:
        await store.save_progress({"mail": 1})
        print("saved", flush=True)
        sys.stdin.readline()
        await store.append(Noted(text="after it"))
        print("appended", flush=True)

asyncio.run(main())
"""


async def test_listeners_are_not_called_for_checkpoints_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_at(tmp_path) as store, program(SAVE_A_CHECKPOINT_AND_APPEND, tmp_path) as other:
        heard: list[None] = []
        store.on_commit(lambda: heard.append(None))
        assert await line(other) == "saved"
        assert await store.checkpoints() == {"mail": 1}
        looks = calls_of(monkeypatch, Environment, "reading")
        await until(lambda: len(looks) >= 2)
        assert heard == []
        await tell(other, "append")
        assert await line(other) == "appended"
        await until(lambda: heard)
        assert heard == [None]


# --- a handler in two processes ----------------------------------------------------------------------------

HANDLE = """
import asyncio, sys
from uno_actors import ActorSystem, HandlerContext, subscribe
from uno_actors.testing.contract.events import Noted

@subscribe(event_type=Noted, name="mail", start="earliest")
async def mail(event: Noted, context: HandlerContext) -> None:
    print("handled", event.text, flush=True)

async def main():
    async with ActorSystem(f"lmdb:{sys.argv[1]}", aggregates=[], handlers=[mail]) as system:
        print("started", system.statistics().handlers["mail"].state == "standby", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print("stopped", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_handler_is_taken_over_by_another_process_where_the_first_has_left_off(
    tmp_path: Path, end: str
) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("0"))
        async with program(HANDLE, tmp_path) as first:
            assert {await line(first), await line(first)} == {"started False", "handled 0"}
            await until(lambda: checkpoint_is(store, "mail", 1))
            async with program(HANDLE, tmp_path) as second:
                assert await line(second) == "started True"
                await store.append(noted("1"))
                assert await line(first) == "handled 1"
                await until(lambda: checkpoint_is(store, "mail", 2))
                if end == "kill":
                    first.kill()
                else:
                    await tell(first, "stop")
                    assert await line(first) == "stopped"
                await first.wait()
                await store.append(noted("2"))
                begun = time.monotonic()
                assert await line(second) == "handled 2"  # and neither 0 nor 1
                assert time.monotonic() - begun < patience(5)
                await tell(second, "stop")
                assert await line(second) == "stopped"
        assert await store.checkpoints() == {"mail": 3}


# --- four processes, the same few aggregates, and SIGKILL --------------------------------------------------


class Worker:
    """One run of the crash worker, which is listened to on a thread."""

    def __init__(self, place: Path | str, name: str, heard: Heard, **options: Any) -> None:
        self.said: list[str] = []
        self._heard = heard
        self.process = Forked(place, name, **options)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for text in self.process.stdout:
            self.said.append(text.strip())

    def has_said(self, lines: int) -> bool:
        assert self.process.returncode is None, "the worker has ended by itself"
        return len(self.said) >= lines

    def has_recorded(self) -> bool:
        """Whether a command of its own was acknowledged; what it handles may come from others."""
        return self.has_said(1) and any(text.startswith("ack ") for text in self.said)

    def end(self) -> None:
        """Wait for its end, and note what it has said."""
        self.process.wait()
        self._thread.join()
        for text in self.said:
            kind, *words = text.split()
            if kind == "ack":
                self._heard.acknowledged[words[0]] = int(words[1])
        self.process.stdout.close()

    def handled(self, name: str) -> list[int]:
        words = [text.split() for text in self.said]
        return [int(each[2]) for each in words if each[:2] == ["handled", name]]


async def some_processes(
    place: Path | str, count: int, kills: int, chance: random.Random, commands: int = 200
) -> None:
    """Kill one after the other at random moments, start another in its place, and look at the end.

    Each sends so many commands at most, so that what is to be handled in the end is bounded.
    """
    heard, ended = Heard(), []
    workers = [Worker(place, f"{number}", heard, commands=commands) for number in range(count)]
    try:
        for number in range(kills):
            each = chance.randrange(count)
            goal = chance.choice([1, 2, chance.randrange(50), chance.randrange(commands)])
            await until(lambda worker=workers[each], goal=goal: worker.has_said(goal))
            await asyncio.sleep(chance.random() / 50)  # the moment of the kill is to be any
            workers[each].process.kill()
            workers[each].end()
            ended.append(workers[each])
            workers[each] = Worker(place, f"{count + number}", heard, commands=commands)
        await until(lambda: all(worker.has_recorded() for worker in workers))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.end()
    last = Worker(place, "last", heard, finish=True)
    last.end()
    assert last.said[-1] == "settled"
    found = await check(place, heard)
    assert len(heard.acknowledged) > kills
    clients = Counter(token.split("-")[0] for token in heard.acknowledged)
    assert len(clients) >= count, "not all of them came to write"
    handled: dict[str, set[int]] = defaultdict(set)
    for worker in [*ended, *workers, last]:
        for name in ("async", "sync", "flaky"):
            positions = worker.handled(name)
            assert positions == sorted(set(positions)), name
            handled[name].update(positions)
    everything = set(found.deposits)
    assert handled == dict.fromkeys(("async", "sync", "flaky"), everything)


@pytest.mark.timeout(120)
async def test_four_processes_on_the_same_aggregates_lose_and_double_nothing_though_killed(
    tmp_path: Path,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await some_processes(tmp_path / "store", 4, 6, random.Random(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_four_processes_survive_two_hundred_kills(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(20):  # each begins anew: four writers of few long streams spend their time replaying
        await some_processes(tmp_path / f"{number}", 4, 10, chance, commands=400)


COMPETE = """
import asyncio, sys
from tests.crash_worker import Account, Deposit
from uno_actors import ActorSystem, ConcurrencyConflict

async def main(path, name, goal):
    async with ActorSystem(f"lmdb:{path}", aggregates=[Account], handlers=[]) as system:
        print("ready", flush=True)
        sys.stdin.readline()
        conflicts = 0
        for number in range(goal):
            while True:
                try:
                    await system.aggregate(Account, f"account-{number % 2}").ask(Deposit(token=f"{name}-{number}"))
                    break
                except ConcurrencyConflict:
                    conflicts += 1
        print(system.statistics().reruns, conflicts, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_commands_of_four_processes_for_two_aggregates_are_run_again_and_none_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    goal = 60
    async with (
        program(COMPETE, tmp_path, "a", goal) as a,
        program(COMPETE, tmp_path, "b", goal) as b,
        program(COMPETE, tmp_path, "c", goal) as c,
        program(COMPETE, tmp_path, "d", goal) as d,
    ):
        for process in (a, b, c, d):
            assert await line(process) == "ready"
        for process in (a, b, c, d):
            await tell(process, "go")
        counts = [[*map(int, (await line(process)).split())] for process in (a, b, c, d)]
        for process in (a, b, c, d):
            assert await process.wait() == 0
    print(f"reruns and conflicts: {counts}")
    assert sum(reruns for reruns, _ in counts) > 0
    assert sum(conflicts for _, conflicts in counts) == 0
    async with LmdbEventStore(tmp_path) as store:
        events = [event async for _, event in store.read_all() if isinstance(event, PartDeposited)]
    assert sorted(event.token for event in events) == sorted(
        f"{of}-{n}" for of in "abcd" for n in range(goal)
    )
    for account in ("account-0", "account-1"):
        versions = [event.aggregate_version for event in events if event.aggregate_id == account]
        assert versions == list(range(1, 2 * goal + 1))
