"""Clusters of real processes, on LMDB with Unix sockets and on PostgreSQL with TCP: killed, stopped, replaced."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.cluster.workers import Worker, check, more, stop, workers
from tests.postgres import postgres


@pytest.fixture(params=["lmdb", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """URL of the store, and where nodes listen."""
    if request.param == "lmdb":
        return f"lmdb:{tmp_path}/store", ""
    return await postgres().new_url(), "127.0.0.1:0"


@pytest.mark.timeout(180)
async def test_a_killed_node_loses_nothing_and_no_other_client_sees_an_error(place: tuple[str, str]) -> None:
    async with workers(place) as start:
        a, b, c = await asyncio.gather(*map(start, "abc"))
        for worker in (a, b, c):
            worker.write(3)
        await asyncio.gather(*[more(worker, 60) for worker in (a, b, c)])
        await b.end(signal.SIGKILL)
        await asyncio.gather(*[more(worker, 60) for worker in (a, c)])
        d = await start("d")
        d.write(3)
        await asyncio.gather(*[more(worker, 60) for worker in (a, c, d)])
        await asyncio.gather(a.end(), c.end(), d.end())
        assert (a.errors, c.errors, d.errors) == ([], [], [])
        assert all(worker.statistics["served"] and worker.statistics["sent"] for worker in (a, c, d))
        await check(place[0], [a, b, c, d])


@pytest.mark.timeout(180)
async def test_a_rolling_restart_of_all_processes_shows_no_client_an_error(place: tuple[str, str]) -> None:
    async with workers(place) as start:
        running: list[Worker] = list(await asyncio.gather(*map(start, "abc")))
        everyone = [*running]
        for worker in running:
            worker.write(3)
        await asyncio.gather(*[more(worker, 40) for worker in running])
        for name in "def":
            old = running.pop(0)
            _, new = await asyncio.gather(old.end(signal.SIGTERM), start(name))
            assert old.process.returncode == 0
            new.write(3)
            running.append(new)
            everyone.append(new)
            await asyncio.gather(*[more(worker, 40) for worker in running])
        await asyncio.gather(*[worker.end() for worker in running])
        assert [worker.errors for worker in everyone] == [[]] * 6
        await check(place[0], everyone)


@pytest.mark.timeout(180)
async def test_nodes_that_have_lent_each_other_aggregates_are_stopped_and_killed(
    place: tuple[str, str],
) -> None:
    """Each node's clients keep to accounts of their own, but for one command in fifty."""
    async with workers(place, {"sticky": True}) as start:
        a, b, c = await asyncio.gather(*map(start, "abc"))
        for worker in (a, b, c):
            worker.write(3)
        await asyncio.gather(*[more(worker, 800) for worker in (a, b, c)])
        await stop(c, (a, b))
        await asyncio.gather(*[more(worker, 300) for worker in (a, b)])
        c.process.send_signal(signal.SIGCONT)
        await asyncio.gather(*[more(worker, 300) for worker in (a, b, c)])
        await b.end(signal.SIGKILL)
        await asyncio.gather(*[more(worker, 300) for worker in (a, c)])
        await asyncio.gather(a.end(), c.end())
        assert (a.errors, c.errors) == ([], [])
        for worker in (a, c):
            assert worker.statistics["lent"] + worker.statistics["recalled"]
        await check(place[0], [a, b, c])
