"""kill -9 at each write of a service that schedules commands: each takes effect once."""

from collections import Counter
from pathlib import Path

import pytest

from tests.scheduling import CancelledNow
from tests.scheduling_worker import run_in_process
from uno_actors import Fired, ScheduleControl, Scheduled, open_store


async def check(path: Path) -> None:
    async with open_store(f"lmdb:{path}", create=False) as store:
        events = [event async for _, event in store.read_all()]
        took_effect = Counter(event.note for event in events if isinstance(event, CancelledNow))
        assert took_effect == {"a": 1, "b": 1}
        scheduled = Counter(event.key for event in events if isinstance(event, Scheduled))
        assert scheduled == {"payment": 2, "yearly": 1}
        assert len([event for event in events if isinstance(event, Fired)]) == 2
        assert [entry.key for entry in await ScheduleControl(store).schedules()] == ["yearly"]
        assert await store.dead_letters() == []


async def kill_and_finish(path: Path, last: int, *, after: bool) -> bool:
    """Whether the service had so many writes."""
    first = run_in_process(str(path), last, after=after)
    assert first in (0, -9)
    assert run_in_process(str(path)) == 0
    await check(path)
    return first == -9


@pytest.mark.parametrize("last", [1, 2, 4, 6, 8, 10, 12])
async def test_each_command_takes_effect_once_although_the_service_is_killed_at_a_write(
    last: int, tmp_path: Path
) -> None:
    assert await kill_and_finish(tmp_path / "store", last, after=last % 4 == 0)


@pytest.mark.soak
@pytest.mark.parametrize("after", [False, True])
async def test_each_command_takes_effect_once_although_the_service_is_killed_at_any_write(
    after: bool, tmp_path: Path
) -> None:
    last = 1
    while await kill_and_finish(tmp_path / f"{last}", last, after=after):
        last += 1
    assert last > 10
