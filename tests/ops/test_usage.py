"""What stores and supervisors report for metrics: bytes, commits, restart budgets."""

from pathlib import Path

import pytest

from tests.bank import EVENTS, credited
from tests.ops.test_health import Mail, serving
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import Backoff, Supervisor
from uno_actors.store.maintenance import HasUsage
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.supervision.policy import ChildState, SupervisorState
from uno_actors.supervision.spec import Budget
from uno_actors.supervision.statistics import restarts_left


async def _grows(store: EventStore) -> None:
    async with store:
        assert isinstance(store, HasUsage)
        await store.append(*credited(1))
        before = await store.usage()
        for _ in range(20):
            await store.append(*list(credited(*range(500))))
        after = await store.usage()
    assert before.size is not None
    assert after.size is not None
    assert after.size > before.size > 0
    assert after.commits - before.commits == 20
    assert after.commit_seconds > before.commit_seconds > 0


@pytest.mark.parametrize("url", ["lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"])
async def test_a_store_reports_its_bytes_and_the_time_of_its_commits(url: str, tmp_path: Path) -> None:
    await _grows(open_store(url.format(tmp_path), EVENTS))


async def test_a_store_in_postgresql_reports_them_too() -> None:
    await _grows(open_store(await postgres().new_url(), EVENTS))


async def test_a_supervisor_reports_its_budget_and_the_back_off_under_way() -> None:
    mail = Mail()
    mail.fails = True
    tree = Supervisor("mails", [mail.spec(max_attempts=9)], max_restarts=3, backoff=Backoff(30, 30, jitter=0))
    async with serving(supervisors=[tree], stop_timeout=0.1) as system:
        before = system.statistics().supervisors
        assert (before["mails"].state, before["mails"].budget, before["mails"].left) == ("running", 3, 3)
        assert before["handlers"].left is None
        await system.store.append(*credited(1))
        await until(lambda: system.statistics().supervisors["mails"].restarting)
        after = system.statistics().supervisors["mails"]
        assert (after.restarts, after.left) == (1, 2)
        assert 25 < after.restarting["mail"] <= 30


@pytest.mark.parametrize(
    ("max_restarts", "budget", "shared", "own", "left"),
    [
        (None, "supervisor", (5.0,), ((), ()), None),
        (3, "supervisor", (), ((), ()), 3),
        (3, "supervisor", (5.0, 9.0), ((), ()), 1),
        (3, "supervisor", (-30.0, 9.0), ((), ()), 2),  # one is out of the window
        (3, "child", (5.0, 6.0, 7.0), ((1.0,), (2.0, 3.0)), 1),  # of the child with the fewest left
        (3, "child", (), ((), ()), 3),
    ],
)
def test_the_restarts_left_of_a_budget(
    max_restarts: int | None,
    budget: Budget,
    shared: tuple[float, ...],
    own: tuple[tuple[float, ...], ...],
    left: int | None,
) -> None:
    rules = Supervisor("s", max_restarts=max_restarts, within=30, budget=budget)
    children = tuple(ChildState(str(n), restarts=restarts) for n, restarts in enumerate(own))
    assert restarts_left(SupervisorState(rules, children, shared), 10.0) == left
