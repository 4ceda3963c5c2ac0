"""``uno-actors run --workers``, as processes with real files, real signals and a real store."""

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from configured import Sell, Shop, Sold
from test_run_cli import HERE, Running

from tests.machine import patience
from tests.waiting import checkpoint_is
from tests.waiting import until as until_true
from uno_actors import ActorSystem, Cluster, EventRegistry

FILE = """\
[system]
name = "shop"
store = "lmdb:${DATA}"
stop_timeout = "20s"
[aggregates]
types = ["configured:Shop"]
[cluster]
workers = 2
[logging]
format = "json"
[[handlers]]
name = "note"
handler = "configured:note"
"""

pytestmark = pytest.mark.timeout(240)


class RunningWorkers(Running):
    """A service of several workers."""

    def logs(self, event: str, **values: object) -> list[dict[str, Any]]:
        """The logged events of this name with these values."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        wanted = {"event": event, **values}
        return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())]

    def start_workers(self, text: str = FILE, *options: str, count: int = 2, **environment: str) -> None:
        """Start it, and return when all workers see each other."""
        self.begin(text, *options, **environment)
        self.until(lambda: len(self.logs("node accepts requests")) >= count and len(self.living()) == count)

    def answer(self) -> dict[str, Any]:
        """What the supervisor process answers to `uno-actors tree --json`; empty if it does not answer yet."""
        answers = [json.loads(line) for line in self.tree("--json").stdout.splitlines()]
        return next((answer for answer in answers if "workers" in answer), {})

    def workers(self) -> dict[str, int | None]:
        found: dict[str, int | None] = self.answer().get("workers", {})
        return found

    def living(self) -> list[int]:
        """The processes of all workers that were started and have not ended."""
        return [line["process"] for line in self.logs("worker starts") if lives(line["process"])]

    def states(self) -> list[str]:
        tree = self.answer().get("tree", {"children": []})
        return [child["state"] for child in tree["children"]]

    def until_running(self, count: int = 2) -> None:
        self.until(lambda: self.states() == ["running"] * count)


def lives(process: int) -> bool:
    """Whether a process runs; one that has ended and was not awaited does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], seconds: float = math.inf) -> None:
    """Wait; the deadline is that of the test, unless one is given."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningWorkers]:
    running = RunningWorkers(tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    if running.log.exists():
        try:
            until(lambda: not running.living(), patience(30))
        finally:  # also a worker that is stopped, and would live on for ever
            for worker in running.living():
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(worker, signal.SIGKILL)


def test_workers_are_one_tree_and_drain_on_a_signal(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    first, second = service.workers().values()
    shown = service.tree()
    assert shown.returncode == 0
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert lines[0].startswith("shop, process ")
    assert lines[1] == f"├─ worker 1  process {first}, running"
    assert lines[2] == "│  └─ handlers  supervisor, running"
    assert lines[4] == f"└─ worker 2  process {second}, running"
    assert len([line for line in lines if "note  handler" in line]) == 2
    assert [line["node"].partition("@")[0] for line in service.logs("node accepts requests")] == [
        "shop/1",
        "shop/2",
    ]
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    assert service.living() == []
    assert [line["system"] for line in service.logs("system stopped")] == ["shop/2", "shop/1"]
    assert not service.logs("worker does not stop and is killed")


def test_a_killed_worker_is_started_again(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    killed = service.workers()["worker 2"]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    service.until(lambda: service.workers().get("worker 2") not in (None, killed))
    service.until_running()
    assert [child["restarts"] for child in service.answer()["tree"]["children"]] == [0, 1]
    assert service.logs("worker has ended")[0]["code"] == -signal.SIGKILL
    service.signal(signal.SIGINT)
    assert service.code() == 0


def test_workers_stop_when_their_supervisor_process_is_killed(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    until(lambda: not service.living())
    assert len(service.logs("system stopped")) == 2  # in order, not by a signal


def test_a_second_signal_kills_all_workers(service: RunningWorkers) -> None:
    service.start_workers(FILE.replace("configured:note", "configured:get_stuck"))
    service.until_running()
    service.sell(1)
    service.until(lambda: service.notes() == [1])
    service.signal(signal.SIGTERM)
    service.until(lambda: service.logs("stopping on signal"))
    service.signal(signal.SIGTERM)
    assert service.code() == 128 + signal.SIGTERM
    until(lambda: not service.living())


def test_workers_stop_within_the_time_of_the_system_together(service: RunningWorkers) -> None:
    text = FILE.replace("configured:note", "configured:get_stuck").replace('"20s"', '"1s"')
    service.start_workers(text)
    service.until_running()
    service.sell(1)
    service.until(lambda: service.notes() == [1])
    begun = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    assert time.monotonic() - begun < patience(4)


def test_a_worker_that_fails_too_often_ends_the_service(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    for killed in range(6):
        service.until(lambda killed=killed: len(service.logs("worker starts", worker=2)) == killed + 1)
        os.kill(service.logs("worker starts", worker=2)[-1]["process"], signal.SIGKILL)
    assert service.code() == 3
    assert service.logs("workers gave up")[0]["reason"] == "failed again after 5 restarts within 30 s"
    assert service.living() == []


def test_what_keeps_the_first_worker_from_starting_ends_the_service(service: RunningWorkers) -> None:
    service.begin(FILE.replace("configured:note", "configured:missing"))
    assert service.code() == 1
    assert "configured:missing" in service.log.read_text()
    assert len(service.logs("worker starts")) == 1
    assert service.living() == []


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (FILE.replace("lmdb:${DATA}", "memory:"), (), "cannot share the store 'memory:'"),
        (FILE, ("--workers", "none"), "Expected a whole number from 1 to 256"),
        (FILE, ("--workers", "clients=1"), "unknown role, 'clients'"),
        (FILE.replace("workers = 2", "workers = 0"), (), "shop.toml:8: cluster.workers"),
        (FILE.replace("workers = 2", 'workers = {aggregates = 1}\nroles = ["handlers"]'), (), "leave `roles` out"),
    ],
)  # fmt: skip
def test_workers_that_cannot_be_are_refused(
    service: RunningWorkers, text: str, options: tuple[str, ...], said: str
) -> None:
    service.begin(text, *options)
    assert service.code() in (1, 2)
    assert said in " ".join(service.log.read_text().replace("│", " ").split())
    assert "worker starts" not in service.log.read_text()


def test_sighup_is_for_each_worker(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    service.file.write_text(f'{FILE}[[handlers]]\nname = "again"\nhandler = "configured:audit"\n')
    service.signal(signal.SIGHUP)
    service.until(lambda: len(service.logs("configuration applied")) == 2)
    assert [line["started"] for line in service.logs("configuration applied")] == [["again"]] * 2
    assert not service.logs("changes take effect at the next start")
    assert not service.logs("changes take effect when the workers are replaced")
    service.file.write_text(FILE.replace("workers = 2", "workers = 3"))
    service.signal(signal.SIGHUP)
    service.until(lambda: service.logs("changes take effect when the workers are replaced"))
    assert len(service.living()) == 2


async def test_a_rolling_restart_shows_no_client_an_error(service: RunningWorkers) -> None:
    await asyncio.to_thread(
        service.start_workers, FILE.replace("workers = 2", "workers = { aggregates = 2 }")
    )
    await asyncio.to_thread(service.until_running)
    before = {*service.living()}
    over = asyncio.Event()
    asked = 0
    url = f"lmdb:{service.directory}/data"
    client = ActorSystem(
        url, aggregates=[Shop], handlers=[], cluster=Cluster(roles=("handlers",)), event_registry=EventRegistry([Sold])
    )  # fmt: skip

    async def sell(system: ActorSystem, number: int) -> None:
        nonlocal asked
        while not over.is_set():
            await system.aggregate(Shop, f"shop-{number}").ask(Sell())
            asked += 1

    async with client as system:
        await until_true(lambda: len(system.cluster.members()) == 3)
        clients = [asyncio.ensure_future(sell(system, number)) for number in range(8)]
        restarted = await asyncio.create_subprocess_exec(
            Path(service.process.args[0]), "restart", service.file,  # type: ignore[union-attr, index]
            env=service.environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await restarted.communicate()
        first, second, last = said.decode().splitlines()
        assert service.logs("workers replaced")  # it has waited for the end
        assert first.startswith("worker 1: process ")
        assert second.startswith("worker 2: process ")
        assert re.fullmatch(r"process \d+: 2 workers replaced in .* s", last)
        assert not any(client.done() for client in clients)
        goal = asked + 40
        while asked < goal:
            assert not any(client.done() for client in clients)
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*clients)
        statistics = system.cluster.statistics()
        takings = [await system.aggregate(Shop, f"shop-{number}").ask(Sell()) for number in range(8)]
    assert statistics.local == 0  # it has not the role, so all of them were sent
    assert sum(takings) == asked + 8  # each took effect once
    after = {*service.living()}
    assert len(after) == 2
    assert not before & after


def test_a_rolling_restart_takes_the_number_of_workers_of_the_file(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    for count in (3, 1):
        service.file.write_text(FILE.replace("workers = 2", f"workers = {count}"))
        service.signal(signal.SIGUSR2)
        service.until(lambda count=count: service.logs("workers replaced", workers=count))
        assert len(service.living()) == count
        assert service.states() == ["running"] * count
    service.signal(signal.SIGTERM)
    assert service.code() == 0


def test_a_rolling_restart_ends_at_the_first_worker_that_does_not_start(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    second = service.workers()["worker 2"]
    service.file.write_text(FILE.replace("configured:note", "configured:missing"))
    restarted = service.command("restart")
    assert restarted.returncode == 1
    assert "worker 1 has not started, with exit code 1; those after it were not replaced" in restarted.stderr
    assert service.logs("replacing of the workers has ended")
    assert service.workers()["worker 2"] == second
    service.file.write_text(FILE.replace("[system]", "[sistem]"))
    restarted = service.command("restart", "--json")  # the command cannot read it either
    assert restarted.returncode == 1
    service.file.write_text(FILE)
    service.until(lambda: service.states() == ["running", "running"])


def test_a_restart_that_need_not_be_waited_for_ends_at_once(service: RunningWorkers) -> None:
    service.start_workers()
    service.until_running()
    restarted = service.command("restart", "--no-wait")
    assert restarted.returncode == 0, restarted.stderr
    assert "replaces its 2 workers one after the other" in restarted.stdout
    service.until(lambda: service.logs("workers replaced"))
    again = service.command("restart", "--json")
    answer = json.loads(again.stdout)
    assert (answer["state"], answer["number"], answer["reason"]) == ("done", 2, None)
    assert [each["worker"] for each in answer["replaced"]] == [1, 2]


def test_the_nodes_of_workers_can_be_named(service: RunningWorkers) -> None:
    service.start_workers(FILE, "--node-name", "web-7")
    service.until(lambda: len(service.logs("system started")) == 2)
    assert {line["node"] for line in service.logs("system started")} == {"shop/1@web-7", "shop/2@web-7"}


def test_a_service_without_workers_has_none_to_restart(service: RunningWorkers) -> None:
    service.start(FILE.replace("[cluster]\nworkers = 2\n", ""))
    assert service.process is not None
    restarted = service.command("restart")
    assert restarted.returncode == 1
    assert "runs without a supervisor of workers" in restarted.stderr


PROGRAM = """
import asyncio, os
from configured import Sell, Shop
from uno_actors import ActorSystem

async def main():
    store = os.environ["DATA"]
    async with ActorSystem(f"lmdb:{store}", name="embedded", aggregates=[Shop], handlers=[], cluster=True) as system:
        await system.aggregate(Shop, "a").ask(Sell())
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_tree_shows_systems_inside_of_other_programs(service: RunningWorkers) -> None:
    service.file.write_text(FILE)
    programs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=service.environment, stdout=subprocess.PIPE, cwd=HERE)
        for _ in range(2)
    ]  # fmt: skip
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
        shown = service.tree()
        lines = [line for line in shown.stdout.splitlines() if line.startswith("embedded, process ")]
        assert {f"embedded, process {program.pid}" in "".join(lines) for program in programs} == {True}
        assert len(lines) == 2
        assert "1 handled of its own" in shown.stdout
    finally:
        for program in programs:
            program.kill()
            program.communicate()


@pytest.mark.parametrize("command", ["aggregates=1,handlers=1", "handlers=1,aggregates=1"])
def test_roles_keep_handlers_out_of_the_processes_that_serve_commands(
    service: RunningWorkers, command: str
) -> None:
    text = FILE.replace("workers = 2", "")
    service.start_workers(text, "--workers", command)
    service.until_running()
    service.sell(3)
    service.until(lambda: service.notes() == [3])
    (serving, handling) = service.answer()["tree"]["children"]
    assert [serving["name"], handling["name"]] == ["worker 1", "worker 2"]
    shown = service.tree().stdout.splitlines()
    assert [line.rpartition(", ")[2] for line in shown if "note  handler" in line] == ["standby", "live"]
    worker = service.workers()["worker 2"]
    assert worker is not None
    # It is not to hold the turn to write.
    service.until(lambda: service.in_store(lambda store: checkpoint_is(store, "note", 1)))
    os.kill(worker, signal.SIGSTOP)  # none of those that serve takes its handlers
    service.sell(4)
    time.sleep(patience(5))
    assert service.notes() == [3]
    os.kill(worker, signal.SIGCONT)
    service.until(lambda: service.notes() == [3, 4])


def test_the_cluster_shows_members_shards_handlers_and_hops(service: RunningWorkers) -> None:
    service.start_workers(FILE.replace("workers = 2", "workers = { aggregates = 2, handlers = 1 }"), count=3)
    service.until_running(3)
    service.until(lambda: "live" in service.tree().stdout)
    found: list[dict[str, Any]] = []

    def holds() -> bool:
        found[:] = [json.loads(line) for line in service.command("cluster", "--json").stdout.splitlines()]
        return [node["handlers"] for node in found] == [[], [], ["note"]]

    service.until(holds)
    first, second, third = found
    assert [node["member"]["roles"] for node in found] == [["aggregates"], ["aggregates"], ["handlers"]]
    assert first["shards"]["Shop"] + second["shards"]["Shop"] == 1024
    assert 400 < first["shards"]["Shop"] < 624
    assert third["shards"] == {"Shop": 0}
    assert all(0 < node["hop"] < 2 and node["statistics"]["served"] == 0 for node in found)
    shown = service.command("cluster")
    assert shown.returncode == 0
    assert "Shop: 2 nodes own shards, the fullest" in shown.stdout
    stopped = first["member"]["process"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        shown = service.command("cluster")
        assert shown.returncode == 1
        assert shown.stdout.count("no answer: ") == 1
    finally:
        os.kill(stopped, signal.SIGCONT)
