"""Copies between stores with different numbers of logs: streams, checkpoints, dead letters and views."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.on_logs import ACCOUNTS, Handled, LogPaid, LogSums, pay_all, sums, system
from tests.postgres import postgres
from tests.waiting import has_no_dead_letters, until
from uno_actors import ActorSystem, open_store
from uno_actors.cli.moved_progress import MovedProgress, Progressed
from uno_actors.cli.store_copy import Copied, CopyRefused, copy_store
from uno_actors.handlers.partitions import log_of_partition, usual_partitions
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.codec import to_record
from uno_actors.store.handler_names import partition_name
from uno_actors.store.logs import log_of_record, shard_of_record, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, StoredRecord
from uno_actors.testing.contract.events import Noted


def unheard(done: int, total: int) -> None:
    """Progress that is not shown."""


async def new_url(logs: int, path: Path) -> str:
    """The URL of a new store with so many logs; one in LMDB has one."""
    if logs == 1:
        return f"lmdb:{path}"
    return f"{await postgres().new_url()}&logs={logs}"


async def copied(source: str, target: str) -> Copied:
    async with open_store(source) as one, open_store(target) as other:
        return await copy_store(one, other, unheard)


async def streams(url: str) -> dict[str, list[tuple[object, ...]]]:
    """The records of each stream, and of all events without one by their correlation."""
    found: dict[str, list[tuple[object, ...]]] = {}
    async with open_store(url) as store:
        async for _, record in store.read_records():
            found.setdefault(f"{record.aggregate_id} {record.correlation_id}", []).append(tuple(record))
    return dict(sorted(found.items()))


@pytest.fixture
async def source(tmp_path: Path) -> str:
    """A store with one log, events of many streams and of none, and some recorded at the same time."""
    url = f"lmdb:{tmp_path}/source"
    async with open_store(url) as store:
        for number in range(1, 6):
            await store.append(
                *(LogPaid(number=number, aggregate_id=each, aggregate_type="Account") for each in ACCOUNTS),
                *(LogPaid(number=number, correlation_id=f"c{each}") for each in range(5)),
            )
    return url


@pytest.mark.parametrize("ways", [(4, 1), (4, 3, 1), (3, 3, 5, 1)])
async def test_every_stream_keeps_its_events_in_order_on_the_way_through_other_numbers_of_logs(
    source: str, tmp_path: Path, ways: Sequence[int]
) -> None:
    wanted = await streams(source)
    assert sum(map(len, wanted.values())) == 5 * (len(ACCOUNTS) + 5)
    before = source
    for step, logs in enumerate(ways):
        after = await new_url(logs, tmp_path / f"copy-{step}")
        assert await copied(before, after) == Copied(5 * (len(ACCOUNTS) + 5), 0, 0, 0)
        assert await streams(after) == wanted
        async with open_store(after) as store:
            assert len(await store.last_positions()) == logs
        before = after


@pytest.mark.parametrize(("logs", "new_logs"), [(1, 4), (4, 1), (3, 4), (4, 4)])
async def test_an_interrupted_copy_to_another_number_of_logs_resumes(
    source: str, tmp_path: Path, logs: int, new_logs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.cli.store_copy.CHUNK", 40)
    before, after = source, await new_url(new_logs, tmp_path / "copy")
    if logs > 1:
        before = await new_url(logs, tmp_path / "between")
        await copied(source, before)
    async with open_store(before) as one, open_store(after) as other:
        commit, commits = other.commit, iter(range(2))

        async def interrupted(requests: Sequence[Append]) -> list[object]:
            next(commits)  # the third one ends the copy
            return list(await commit(requests))

        monkeypatch.setattr(other, "commit", interrupted)
        with pytest.raises(RuntimeError):  # StopIteration, inside of a coroutine
            await copy_store(one, other, unheard)
    total = 5 * (len(ACCOUNTS) + 5)
    assert await copied(before, after) == Copied(total - 80, 80, 0, 0)
    assert await copied(before, after) == Copied(0, total, 0, 0)
    assert await streams(after) == await streams(source)


async def test_a_target_with_other_events_in_one_of_its_logs_is_refused(source: str, tmp_path: Path) -> None:
    after = await new_url(4, tmp_path / "copy")
    async with open_store(after) as store:
        await store.append(Noted(aggregate_id="a", aggregate_type="Account"))
        ends = await store.last_positions()
    with pytest.raises(CopyRefused, match="another event at position|not the first ones"):
        await copied(source, after)
    async with open_store(after) as store:
        assert await store.last_positions() == ends


async def test_a_copy_that_changes_an_event_is_detected(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(source) as one, open_store(await new_url(4, tmp_path)) as other:
        commit = other.commit

        async def changed(requests: Sequence[Append]) -> list[object]:
            (request,) = requests
            records = (*request.records[:-1], request.records[-1]._replace(topic="x"))
            return list(await commit([Append(records)]))

        monkeypatch.setattr(other, "commit", changed)
        with pytest.raises(CopyRefused, match="another event at position"):
            await copy_store(one, other, unheard)


async def test_a_source_whose_handlers_run_is_reported(source: str, tmp_path: Path) -> None:
    async with open_store(source) as one, open_store(await new_url(4, tmp_path)) as other:
        moved = iter(range(1, 99))

        async def run_on() -> None:
            await one.save_progress({"mail": next(moved)})

        await run_on()
        commit = other.commit

        async def and_handle(requests: Sequence[Append]) -> list[object]:
            await run_on()
            return list(await commit(requests))

        other.commit = and_handle  # type: ignore[assignment, method-assign]
        with pytest.raises(CopyRefused, match="handlers have run on the source"):
            await copy_store(one, other, unheard)


# --- handlers continue -------------------------------------------------------------------------------------


async def pay(url: str, number: int) -> None:
    async with open_store(url) as store:
        await pay_all(store, number)


@pytest.mark.parametrize(
    ("before", "after"),
    [(False, True), (True, True), (4, 4), (False, 4), (True, 4)],
    ids=["plain", "partitioned", "same number", "plain to 4", "another number"],
)
@pytest.mark.parametrize("new_logs", [4, 32])
async def test_handlers_of_a_store_with_one_log_continue_on_several(
    tmp_path: Path, before: bool | int, after: bool | int, new_logs: int
) -> None:
    if isinstance(after, int) and after % new_logs and after is not True:
        after = new_logs * 2
    handled, source = Handled(), f"lmdb:{tmp_path}/source"
    await pay(source, 1)
    async with system(source, handled.spec(partitioned=before)) as running:
        await running.settled()
    await pay(source, 2)
    target = await new_url(new_logs, tmp_path)
    await copied(source, target)
    await pay(target, 3)
    async with system(target, handled.spec(partitioned=after)) as running:
        await running.settled()
    assert handled.all_are([1, 2, 3])


async def test_handlers_of_several_logs_continue_on_another_number_and_on_one(tmp_path: Path) -> None:
    handled, source = Handled(), await new_url(4, tmp_path)
    await pay(source, 1)
    async with system(source, handled.spec(partitioned=True)) as running:
        await running.settled()
        await running.pause("mail@3of16")
        await pay(source, 2)
        await running.settled()
    lagging = {account for account in ACCOUNTS if handled.numbers_of(account) == [1]}
    assert 0 < len(lagging) < len(ACCOUNTS)
    before = source
    for step, logs in enumerate((8, 32)):
        target = await new_url(logs, tmp_path)
        await copied(before, target)
        if step == 1:
            async with system(target, handled.spec(partitioned=True)) as running:
                await running.settled()
            assert handled.all_are([1, 2])
        before = target
    await pay(before, 3)
    one = await new_url(1, tmp_path / "one")
    await copied(before, one)
    handled.calls.clear()
    async with system(one, handled.spec(partitioned=True)) as running:
        await running.settled()
    assert handled.all_are([3])


async def test_dead_letters_come_to_the_partition_that_has_the_event(tmp_path: Path) -> None:
    handled, source = Handled(), f"lmdb:{tmp_path}/source"
    handled.fails = True
    await pay(source, 1)
    async with system(source, handled.spec(partitioned=False, max_attempts=1)) as running:
        await until(lambda: running.statistics().handlers["mail"].dead_letters == len(ACCOUNTS))
    target = await new_url(4, tmp_path)
    await copied(source, target)
    handled.fails = False
    async with system(target, handled.spec(partitioned=True)) as running:
        assert await running.retry_dead_letters("mail") == len(ACCOUNTS)
        await until(lambda: has_no_dead_letters(running.store))
    assert handled.all_are([1])
    assert len({part for _, part, _, _ in handled.calls}) > 4


class LogSumsThatFail(LogSums):
    """Cannot count one event, until it can."""

    fails = True

    async def handle(self, event: LogPaid) -> None:
        if self.fails and (event.aggregate_id, event.number) == (ACCOUNTS[7], 2):
            raise ValueError("not this one")
        await super().handle(event)


async def view_of(running: ActorSystem, spec: HandlerSpec) -> dict[str, int]:
    return dict(await running.view(spec).range())


async def test_parts_of_a_view_are_kept_where_their_number_fits_both_stores(tmp_path: Path) -> None:
    spec = HandlerSpec("sums", LogSumsThatFail, partitioned=True, max_attempts=1)
    source = f"lmdb:{tmp_path}/source"
    await pay(source, 1)
    async with system(source, spec) as running:
        await pay_all(running.store, 2)
        await until(lambda: _has_letters(running.store))
        await running.settled()
        await running.pause("sums@2of16")
        await pay_all(running.store, 3)
        await running.settled()
    target = await new_url(4, tmp_path)
    assert await copied(source, target) == Copied(3 * len(ACCOUNTS), 0, 16, 0)
    LogSumsThatFail.fails = False
    try:
        async with system(target, spec) as running:
            handled = sum(each.handled for each in running.statistics().handlers.values())
            await running.settled()
            assert sum(each.handled for each in running.statistics().handlers.values()) - handled < 10
            wanted = dict.fromkeys(ACCOUNTS, 6) | {ACCOUNTS[7]: 4}
            assert await view_of(running, spec) == wanted
            assert await running.retry_dead_letters("sums") == 1
            await until(lambda: has_no_dead_letters(running.store))
            await pay(target, 4)
            await running.settled()
            assert await view_of(running, spec) == dict.fromkeys(ACCOUNTS, 10)
    finally:
        LogSumsThatFail.fails = True


async def _has_letters(store: EventStore) -> bool:
    return bool(await store.dead_letters())


async def test_a_view_whose_parts_do_not_fit_is_rebuilt(tmp_path: Path) -> None:
    source = f"lmdb:{tmp_path}/source"
    await pay(source, 1)
    async with system(source, sums(partitioned=True)) as running:
        await running.settled()
    target = await new_url(32, tmp_path)
    assert await copied(source, target) == Copied(len(ACCOUNTS), 0, 0, 1)
    async with system(target, sums(partitioned=True)) as running:
        await running.settled()
        assert await view_of(running, sums(partitioned=True)) == dict.fromkeys(ACCOUNTS, 1)
        assert len(running.statistics().handlers) == 32


# --- the rule ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([0, 1, 2]),
    st.data(),
)
def test_no_event_that_was_not_handled_is_left_out(
    accounts: list[int], logs: int, new_logs: int, times: int, data: st.DataObject
) -> None:
    """Whatever the layouts: the first event that a partition of the copy passes over was handled in the source."""
    records = [to_record(Noted(aggregate_id=f"a{each}", aggregate_type="Account")) for each in accounts]
    count = usual_partitions(logs) if times == 0 else times * logs
    if logs == 1 and count == 1:
        count = 0
    old, new = _placed(records, logs), _placed(records, new_logs)
    ends = starts_of_logs(logs)
    for position, record in old:
        ends[log_of_record(record, logs)] = position
    names = [partition_name("h", n, count) for n in range(1, count + 1)] or ["h"]
    checkpoints = {}
    for number, name in enumerate(names, 1):
        log = log_of_partition(number, logs)
        checkpoints[name] = data.draw(st.integers(starts_of_logs(logs)[log], ends[log]), name)
    moved = MovedProgress(Progressed(checkpoints, [], {}), logs, new_logs)
    places = starts_of_logs(new_logs)
    for stored, (place, record) in zip(old, new, strict=True):
        moved.see(stored, place)
        places[log_of_record(record, new_logs)] = place
    found = moved.result(places).checkpoints
    new_count = len(found) if set(found) != {"h"} else 0
    assert new_count % new_logs == 0
    for (position, record), (place, _) in zip(old, new, strict=True):
        shard = shard_of_record(record)
        before = checkpoints[names[shard % count] if count else "h"]
        after = found[partition_name("h", shard % new_count + 1, new_count) if new_count else "h"]
        if position > before:
            assert place > after, "it is not handled yet, and must not be passed over"
    if all(checkpoints[name] == ends[log_of_partition(n, logs)] for n, name in enumerate(names, 1)):
        assert sorted(set(found.values())) == sorted(set(places)), (
            "with nothing left, nothing is handled again"
        )


def _placed(records: Sequence[object], logs: int) -> list[StoredRecord]:
    places = starts_of_logs(logs)
    placed = []
    for record in records:
        log = log_of_record(record, logs)  # type: ignore[arg-type]
        places[log] += 1
        placed.append(StoredRecord(places[log], record))  # type: ignore[arg-type]
    return placed
