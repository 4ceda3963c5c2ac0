"""Requests of operators to handlers: pause, resume, reset, retry; and removing a handler from a running system."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank import BankStore, Credited, credited
from tests.test_handler_actor import serving, subscription
from tests.test_projections import Totals, totals
from tests.waiting import has_no_dead_letters, turns, until
from uno_actors import (
    ActorSystem,
    EventPriority,
    HandlerContext,
    HandlerControl,
    HandlerInfo,
    InvalidReset,
    NoDeadLetter,
    SystemNotRunning,
    UnknownHandler,
    subscribe,
)
from uno_actors.handlers.requests import Requests, Reset
from uno_actors.handlers.router import CHECKPOINT_EVERY
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.testing import ManualClock, inspect


class Seen(list[int]):
    """A handler and the amounts that it has handled; it fails at the `bad` ones."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: set[int] = set()

    def spec(self, **options: Any) -> HandlerSpec:
        async def handle(given: Any) -> None:
            amounts = [event.amount for event in (given if isinstance(given, list) else [given])]
            for amount in amounts:
                if amount in self.bad:
                    raise ValueError(f"not {amount}")
            self.extend(amounts)

        return HandlerSpec("mail", handle, Credited, **{"start": "earliest", **options})


async def attempts_are(store: BankStore, position: int, count: int) -> bool:
    """Whether the dead letter at ``position`` was tried ``count`` times; for `until`."""
    return any(
        each.position == position and each.attempts == count for each in await store.dead_letters("mail")
    )


async def info(system: ActorSystem, name: str = "mail") -> HandlerInfo:
    return next(each for each in await system.handlers() if each.name == name)


KINDS = pytest.mark.parametrize("options", [{}, {"batch": 3}, {"concurrency": 2}], ids=str)


# --- pause and resume ---


@KINDS
async def test_a_paused_handler_handles_nothing_and_resumes_where_it_stopped(options: dict[str, int]) -> None:
    store, seen, after = BankStore(), Seen(), Seen()
    low = HandlerSpec("low", after.spec().target, Credited, priority=EventPriority.LOW)
    async with serving(store, seen.spec(priority=EventPriority.HIGH, **options), low) as system:
        await store.append(*credited(1, 2))
        await system.settled()
        await system.pause("mail")
        await store.append(*credited(3, 4))
        await system.settled()
        assert (seen, after) == ([1, 2], [1, 2, 3, 4]), "nobody waits for it"
        it = await info(system)
        assert (it.state, it.paused, it.position, it.lag) == ("paused", True, 2, 2)
        assert system.statistics().handlers["mail"].state == "paused"
        await system.pause("mail")
        await system.resume("mail")
        await system.settled()
        it = await info(system)
        assert (seen, it.state, it.paused, it.lag) == ([1, 2, 3, 4], "live", False, 0)
    assert await store.checkpoints() == {"mail": 4, "low": 4}


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_pause_lets_the_event_being_handled_finish(kind: str) -> None:
    store, seen = BankStore(), list[int]()
    go_on = threading.Event()

    def mail(event: Credited) -> None:
        assert go_on.wait(10)
        seen.append(event.amount)

    async def mail_on_loop(event: Credited) -> None:
        await until(go_on.is_set)
        seen.append(event.amount)

    spec = HandlerSpec("mail", mail if kind == "plain" else mail_on_loop, Credited, timeout=20)
    async with serving(store, spec) as system:
        await store.append(*credited(1, 2))
        await until(lambda: system.statistics().handlers["mail"].waiting == 1)
        await system.pause("mail")
        go_on.set()
        await until(lambda: seen == [1])
        await turns()
        assert (seen, (await info(system)).position) == ([1], 1)
        await system.resume("mail")
        await system.settled()
    assert seen == [1, 2]


async def test_a_pause_outlives_the_system_and_can_be_requested_while_none_runs() -> None:
    store, seen = BankStore(), Seen()
    control = HandlerControl(store)
    with pytest.raises(UnknownHandler, match="'mail'; none has run on this store yet"):
        await control.pause("mail")
    async with serving(store, seen.spec()) as system:
        await system.settled()
    await control.pause("mail")
    await store.append(*credited(1))
    (it,) = await control.handlers()
    assert (it.state, it.paused, it.position, it.lag, it.failures) == ("paused", True, 0, 1, None)
    async with serving(store, seen.spec()) as system:
        await system.settled()
        assert seen == []
    await control.resume("mail")
    (it,) = await control.handlers()
    assert (it.state, it.paused) == ("not running", False)
    async with serving(store, seen.spec()) as system:
        await system.settled()
        assert seen == [1]


async def test_a_request_of_another_process_is_seen_within_half_a_second() -> None:
    store, seen, clock = BankStore(), Seen(), ManualClock()
    async with serving(store, seen.spec(), clock=clock) as system:
        await system.settled()
        elsewhere = HandlerControl(store)
        await elsewhere.pause("mail")
        assert (await elsewhere.handlers())[0].paused
        clock.advance(0.5)
        await until(lambda: system.statistics().handlers["mail"].state == "paused")
        clock.advance(0.5)
        await turns()
        (it,) = await elsewhere.handlers()
        assert (it.state, it.failures) == ("paused", 0), "as its process tells"
        await elsewhere.resume("mail")
        clock.advance(0.5)
        await until(lambda: system.statistics().handlers["mail"].state == "live")


async def test_a_store_that_cannot_be_read_for_a_while_does_not_end_the_watch_for_requests() -> None:
    store, seen, clock = BankStore(), Seen(), ManualClock()
    async with serving(store, seen.spec(), clock=clock) as system:
        await system.settled()
        await HandlerControl(store).pause("mail")
        real, fails = store.read_view, [1, 1]

        async def read_view(*arguments: Any, **options: Any) -> Any:
            if fails:
                fails.pop()
                raise ConnectionError("away")
            return await real(*arguments, **options)

        store.read_view = read_view  # type: ignore[method-assign]
        await clock.advance_until(lambda: system.statistics().handlers["mail"].state == "paused")


async def test_a_handler_on_standby_reads_requests_before_it_takes_over() -> None:
    store, seen, clock = BankStore(), Seen(), ManualClock()
    lease = await store.lease("mail")
    assert lease is not None
    await store.save_progress({"mail": 0})
    await store.append(*credited(1))
    async with serving(store, seen.spec(), clock=clock) as system:
        await HandlerControl(store).pause("mail")
        assert (await info(system)).state == "standby"
        await lease.release()
        await clock.advance_until(lambda: system.statistics().handlers["mail"].state == "paused", step=1.0)
        await turns()
        assert seen == []


# --- reset ---


@KINDS
async def test_a_reset_handler_handles_the_events_between_again_or_never(
    options: dict[str, int],
) -> None:
    store, seen = BankStore(), Seen()
    async with serving(store, seen.spec(**options)) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
        assert await system.reset("mail", 1) == 1
        await system.settled()
        assert seen == [1, 2, 3, 2, 3]
        assert await system.reset("mail", "earliest") == 0
        await system.settled()
        assert seen[5:] == [1, 2, 3]
        await system.pause("mail")
        await store.append(*credited(4, 5))
        assert await system.reset("mail", "latest") == 5
        assert (await info(system)).reset_to == 5
        await system.resume("mail")
        await system.settled()
        await store.append(*credited(6))
        await system.settled()
        assert seen[8:] == [6]
        assert (await info(system)).reset_to is None
    assert await store.checkpoints() == {"mail": 6}


async def test_a_reset_to_a_time_goes_to_the_first_event_of_that_time_or_later() -> None:
    store, seen = BankStore(), Seen()
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    for hour in (0, 2, 1):
        await store.append(Credited(amount=hour, timestamp=noon + timedelta(hours=hour)))
    async with serving(store, seen.spec()) as system:
        await system.settled()
        assert await system.reset("mail", noon + timedelta(minutes=30)) == 1
        assert await system.reset("mail", (noon + timedelta(hours=2)).replace(tzinfo=None)) == 1
        assert await system.reset("mail", noon + timedelta(hours=3)) == 3
        assert await system.reset("mail", noon) == 0


async def test_a_reset_that_was_requested_while_none_runs_is_carried_out_once() -> None:
    store, seen = BankStore(), Seen()
    await store.append(*credited(1, 2, 3))
    for expected in ([1, 2, 3], [1, 2, 3, 3], [1, 2, 3, 3]):
        async with serving(store, seen.spec()) as system:
            await system.settled()
        assert seen == expected
        if len(seen) == 3:
            await HandlerControl(store).reset("mail", 2)
            (it,) = await HandlerControl(store).handlers()
            assert (it.position, it.reset_to) == (3, 2)


@KINDS
async def test_a_reset_handler_that_is_soon_where_it_was_is_not_reset_again_in_the_next_system(
    options: dict[str, int],
) -> None:
    store, seen, clock = BankStore(), Seen(), ManualClock()
    await store.append(*credited(1, 2, 3))
    async with serving(store, seen.spec(**options), clock=clock) as system:
        await system.settled()
        clock.advance(CHECKPOINT_EVERY)
        await turns()
        assert await store.checkpoints() == {"mail": 3}
        await system.reset("mail", "earliest")
        await system.settled()
    assert (seen, await store.checkpoints()) == ([1, 2, 3, 1, 2, 3], {"mail": 3})


async def test_a_reset_whose_commit_fails_is_carried_out_later() -> None:
    store, seen = BankStore(), Seen()
    await store.append(*credited(1, 2))
    async with serving(store, seen.spec()) as system:
        await system.settled()
        save, errors = store.save_progress, [ConnectionError("away")]

        async def save_progress(checkpoints: Any, *others: Any, **views: Any) -> None:
            if views and "mail" in checkpoints and errors:
                raise errors.pop()
            await save(checkpoints, *others, **views)

        store.save_progress = save_progress  # type: ignore[method-assign]
        await system.reset("mail", 1)
        await system.settled()
        assert not errors
        assert seen[:3] == [1, 2, 2]
        assert (await info(system)).reset_to is None


async def test_a_reset_of_a_projection_rebuilds_its_view_beside_the_old_one() -> None:
    store = BankStore()
    go_on = asyncio.Event()
    go_on.set()

    class Gated(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await go_on.wait()
            await super().handle(event, context)

    await store.append(*credited(1, 2))
    async with serving(store, totals(1, Gated)) as system:
        await system.settled()
        with pytest.raises(InvalidReset, match="reset it to 'earliest' alone"):
            await system.reset("totals", 1)
        go_on.clear()
        assert await system.reset("totals", "earliest") == 0
        await until(lambda: store.saved.keys() >= {"totals@1"})
        await until(lambda: system.statistics().handlers["totals"].position == 0)
        view = system.view(totals())
        assert await view.get(("account", "")) == (2, 3)
        await store.append(*credited(4))
        await until(lambda: system.statistics().handlers["totals"].state == "catching up")
        assert await view.get(("account", "")) == (2, 3), "the old one is read until the new one is there"
        it = await info(system, "totals")
        assert (it.position, it.lag, it.view, it.reset_to) == (0, 3, "totals@1.1", None)
        go_on.set()
        await system.settled()
        assert await view.get(("account", "")) == (3, 7)
    assert await store.checkpoints() == {"totals@1.1": 3}
    assert await store.read_view("totals@1") == []


async def test_an_invalid_request_is_refused_with_what_exists() -> None:
    store, seen = BankStore(), Seen()
    async with serving(store, seen.spec(), totals()) as system:
        await store.append(*credited(1))
        await system.settled()
        for asked in (
            system.pause("nail"),
            system.resume("nail"),
            system.reset("nail", 0),
            system.retry_dead_letters("nail"),
        ):
            with pytest.raises(UnknownHandler, match="'nail'; there are: mail, totals"):
                await asked
        with pytest.raises(InvalidReset, match="after position 2: the log ends at 1"):
            await system.reset("mail", 2)
        for no_place in (-1, "earlist", None, 1.5):
            with pytest.raises(InvalidReset, match=f"a position .* or a datetime, not from {no_place!r}"):
                await system.reset("mail", no_place)  # type: ignore[arg-type]
        with pytest.raises(NoDeadLetter, match="mail has no dead letter at position 1"):
            await system.retry_dead_letters("mail", [1])
        assert await system.retry_dead_letters("mail") == 0
    with pytest.raises(SystemNotRunning):
        await system.pause("mail")


def test_a_request_that_is_read_once_more_while_it_is_being_removed_is_not_carried_out_again() -> None:
    it = subscription(live=False, position=5)
    requests = Requests(reset=Reset("first", 2))
    it.take_requests(requests, 5)
    it.move_to(2)
    it.requests.was_reset(Reset("first", 2))
    it.take_requests(requests, 5)
    assert not it.requests
    it.take_requests(Requests(reset=Reset("second", 2)), 5)
    assert it.requests


async def test_a_request_in_the_middle_of_a_page_of_the_log_skips_nothing() -> None:
    store, seen, go_on = BankStore(), list[int](), asyncio.Event()

    @subscribe(name="mail", event_type=Credited, start="earliest", max_attempts=1)
    async def mail(event: Credited, context: HandlerContext) -> None:
        if event.amount == 1 and context.attempt == 1:
            raise ValueError
        if event.amount == 5:
            await go_on.wait()
        seen.append(event.amount)

    await store.append(*credited(*range(1, 11)))
    async with serving(store, mail) as system:
        await until(lambda: seen == [2, 3, 4])
        await system.retry_dead_letters("mail")
        go_on.set()
        await system.settled()
    assert seen == [2, 3, 4, 5, 1, 6, 7, 8, 9, 10]


@KINDS
async def test_a_pause_while_the_log_is_read_skips_nothing_and_delays_no_other_handler(
    options: dict[str, int],
) -> None:
    store, seen, after = BankStore(), Seen(), Seen()
    await store.append(*credited(1, 2, 3))
    await store.save_progress({"mail": 0})
    await HandlerControl(store).pause("mail")
    spec = seen.spec(priority=EventPriority.HIGH, **options)
    low = HandlerSpec("low", after.spec().target, Credited, priority=EventPriority.LOW, start="earliest")
    read, reading, go_on = store.read_log, asyncio.Event(), asyncio.Event()

    async def hold(*arguments: Any) -> Any:
        found = await read(*arguments)
        if found and not reading.is_set():
            reading.set()
            await go_on.wait()
        return found

    async with serving(store, spec, low) as system:
        await system.settled()
        store.read_log = hold  # type: ignore[method-assign]
        await system.resume("mail")
        await reading.wait()
        await system.pause("mail")
        go_on.set()
        await turns()
        await store.append(*credited(4))
        await system.settled()
        assert after == [1, 2, 3, 4], "nobody waits for it"
        assert system.statistics().handlers["mail"].state == "paused"
        await system.resume("mail")
        await system.settled()
    assert seen == [1, 2, 3, 4]


# --- dead letters ---


@KINDS
async def test_a_dead_letter_that_is_handled_at_last_is_removed(options: dict[str, int]) -> None:
    store, seen = BankStore(), Seen()
    seen.bad = {2, 3}
    async with serving(store, seen.spec(max_attempts=2, **options)) as system:
        await store.append(*credited(1, 2, 3, 4))
        await system.settled()
        first = await store.dead_letters()
        assert [(letter.position, letter.attempts) for letter in first] == [(2, 2), (3, 2)]
        seen.bad = {3}
        assert await system.retry_dead_letters("mail", [2]) == 1
        await until(lambda: len(seen) == 3)
        assert sorted(seen) == [1, 2, 4]
        assert seen[-1] == 2
        assert await system.retry_dead_letters("mail") == 1
        await until(lambda: system.statistics().handlers["mail"].failures >= 5)
        await until(lambda: attempts_are(store, 3, 3))
        (letter,) = await store.dead_letters()
        assert letter.first_failed == first[1].first_failed
        assert letter.last_failed > first[1].last_failed
        assert "not 3" in letter.error
        assert "ValueError" in letter.traceback
        assert (await info(system)).dead_letters == 1
        assert (await info(system)).retries == 0
        seen.bad = set()
        await system.retry_dead_letters("mail")
        await until(lambda: has_no_dead_letters(store))
        await store.append(*credited(5))
        await system.settled()
        assert seen[-2:] == [3, 5]
    assert await store.checkpoints() == {"mail": 5}


async def test_a_retried_event_comes_between_two_others_and_never_beside_one() -> None:
    store, log, running = BankStore(), list[str](), 0
    go_on = asyncio.Event()

    @subscribe(name="mail", event_type=Credited, max_attempts=1, concurrency=3)
    async def mail(event: Credited, context: HandlerContext) -> None:
        nonlocal running
        if event.amount == 1 and context.attempt == 1:
            raise ValueError
        running += 1
        log.append(f"{event.amount} beside {running - 1}")
        await go_on.wait()
        running -= 1

    async with serving(store, mail) as system:
        await store.append(*credited(1, aggregate_id="a"))
        await system.settled()
        for number, name in enumerate("bcde"):
            await store.append(*credited(2 + number, aggregate_id=name))
        await until(lambda: running == 3)
        await system.retry_dead_letters("mail")
        await turns()
        assert running == 3
        go_on.set()
        await system.settled()
    assert log[:3] == ["2 beside 0", "3 beside 1", "4 beside 2"]
    assert log[3] == "1 beside 0"
    assert log[4:] == ["5 beside 0"]


async def test_a_class_is_instantiated_again_after_a_retry_that_failed() -> None:
    store, made = BankStore(), list[object]()

    class Mail:
        def __init__(self) -> None:
            made.append(self)

        async def __call__(self, event: Credited) -> None:
            raise ValueError

    async with serving(store, HandlerSpec("mail", Mail, Credited, max_attempts=1)) as system:
        await store.append(*credited(1))
        await system.settled()
        count = len(made)
        await system.retry_dead_letters("mail")
        await until(lambda: attempts_are(store, 1, 2))
        await until(lambda: len(made) == count + 1)


async def test_a_dead_letter_that_was_dropped_before_its_retry_is_not_retried() -> None:
    store, seen = BankStore(), Seen()
    seen.bad = {1}
    async with serving(store, seen.spec(max_attempts=1)) as system:
        await store.append(*credited(1))
        await system.settled()
        await system.pause("mail")
        await system.retry_dead_letters("mail")
        assert (await info(system)).retries == 1
        assert await store.drop_dead_letter("mail", 1)
        seen.bad = set()
        await system.resume("mail")
        await until(lambda: not next(iter(inspect(system).handlers.values())).retries)
        await turns()
        assert (seen, (await info(system)).retries) == ([], 0)


async def test_a_dead_letter_of_a_projection_counts_once_however_its_view_was_built() -> None:
    store, bad = BankStore(), {2}

    class Fails(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await super().handle(event, context)
            if event.amount in bad:
                raise ValueError

    def spec(version: int) -> HandlerSpec:
        return HandlerSpec("totals", type("Totals", (Fails,), {"version": version}), Credited, max_attempts=1)

    async def retried(system: ActorSystem, version: int) -> Any:
        await system.retry_dead_letters("totals")
        await until(lambda: not next(iter(inspect(system).handlers.values())).retries)
        await system.settled()
        return await system.view(spec(version)).get(("account", ""))

    await store.append(*credited(1, 2, 4))
    async with serving(store, spec(1)) as system:
        await system.settled()
        assert await retried(system, 1) == (2, 5), "it fails again and has written nothing"
        await store.append(*credited(8))
        await system.settled()
    bad.clear()
    async with serving(store, spec(1)) as system:
        assert len(await store.dead_letters()) == 1
        assert len(await store.read_view("totals@1", b"\0", b"\x01")) == 1, "it is noted as not counted"
        assert await retried(system, 1) == (4, 15)
        assert await store.dead_letters() == []
        assert await store.read_view("totals@1", b"\0", b"\x01") == []
        assert await system.view(spec(1)).range("position") == [(("position", n), 1) for n in (1, 2, 3, 4)]
    bad.add(1)
    async with serving(store, spec(2)) as system:
        await system.settled()
        bad.clear()
        await system.reset("totals", "earliest")
        await system.settled()
        assert len(await store.dead_letters()) == 1, "of the view before"
        assert await retried(system, 2) == (4, 15), "it was counted when the view was built anew"
        assert await store.dead_letters() == []


# --- everything together ---


asked = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 5), min_size=1, max_size=4)),
        st.sampled_from(
            [("pause",), ("resume",), ("retry",), ("settle",), ("turns",), ("heal",), ("restart",)]
        ),
        st.tuples(st.just("reset"), st.integers(0, 8)),
    ),
    max_size=14,
)


class Operated:
    """A store whose one handler gets all kinds of requests, from one run of a system to the next."""

    def __init__(self, options: dict[str, int], bad: set[int]) -> None:
        self.store = BankStore()
        self.recorded = 0
        self.handled: list[int] = []  # positions; or the number that it was reset to, as a negative one
        self.bad = set(bad)
        self.spec = HandlerSpec(
            "mail",
            self.mail,
            Credited,
            start="earliest",
            max_attempts=2,
            **options,  # type: ignore[arg-type]
        )

    async def mail(self, given: Any) -> None:
        for event in given if isinstance(given, list) else [given]:
            await asyncio.sleep(0)
            if event.amount % 10 in self.bad:
                raise ValueError(event.amount)
            self.handled.append(event.amount // 10)

    async def ask(self, system: ActorSystem, step: str, *arguments: Any) -> None:
        match step:
            case "append":
                for amount in arguments[0]:
                    self.recorded += 1
                    event = credited(self.recorded * 10 + amount, aggregate_id=f"account-{amount % 3}")
                    await self.store.append(*event)
            case "reset":
                back = min(arguments[0], (await info(system)).position)
                self.handled.append(-back)
                await system.reset("mail", back)
            case "pause":
                await system.pause("mail")
            case "resume":
                await system.resume("mail")
            case "retry":
                await system.retry_dead_letters("mail")
            case "settle":
                await system.settled()
            case "heal":
                self.bad.clear()
            case _:
                await turns(3)

    async def run(self, steps: list[tuple[Any, ...]]) -> None:
        """Until the next restart; if there is none, until everything is done."""
        async with serving(self.store, self.spec) as system:
            while steps:
                step = steps.pop(0)
                if step == ("restart",):
                    break
                await self.ask(system, *step)
            else:
                await system.resume("mail")
                await system.settled()


@settings(max_examples=100, deadline=None)
@given(asked, st.sampled_from([{}, {"batch": 2}, {"concurrency": 2}]), st.sets(st.integers(0, 5), max_size=2))
def test_whatever_is_requested_no_event_is_missed(
    steps: list[tuple[Any, ...]], options: dict[str, int], bad: set[int]
) -> None:
    """Each event is handled, those after the last reset once more, or is among the dead letters."""

    async def run() -> None:
        it, left = Operated(options, bad), [*steps, ("restart",)]
        while left:
            await it.run(left)
        await it.run(left)
        aside = {letter.position for letter in await it.store.dead_letters()}
        handled, everything = it.handled, set(range(1, it.recorded + 1))
        last = max((place for place, each in enumerate(handled) if each <= 0), default=None)
        assert everything <= set(handled) | aside
        if last is not None:
            again = {position for position in everything if position > -handled[last]}
            assert again <= set(handled[last + 1 :]) | aside
        assert await it.store.checkpoints() == {"mail": it.recorded}

    asyncio.run(run())


async def test_a_reset_that_is_requested_while_another_is_carried_out_is_not_lost() -> None:
    it: Operated = Operated({}, set())
    await it.run([("append", [0, 0, 0, 0]), ("reset", 1), ("reset", 0)])
    assert it.handled[it.handled.index(0) :].count(1) == 1, it.handled


async def test_a_projection_is_known_as_soon_as_its_system_runs() -> None:
    store = BankStore()
    async with serving(store, totals()) as system:
        await system.pause("totals")
        assert (await info(system, "totals")).state == "paused"


# --- taking one out ---


async def test_a_handler_that_is_unsubscribed_handles_nothing_more_and_can_come_back() -> None:
    store, seen, other = BankStore(), Seen(), Seen()
    pattern = subscribe(topic_pattern="bank.*", name="by topic")(lambda event: other.append(event.amount))
    async with serving(store, seen.spec(), pattern) as system:
        await store.append(*credited(1))
        await system.settled()
        await system.unsubscribe("mail")
        await system.unsubscribe("by topic")
        await store.append(*credited(2))
        await system.settled()
        assert (seen, other, system.statistics().handlers) == ([1], [1], {})
        assert inspect(system).topics == frozenset()
        with pytest.raises(UnknownHandler, match="'mail'"):
            await system.unsubscribe("mail")
        async with serving(store, seen.spec(), pattern) as successor:
            await successor.settled()
            assert (seen, other) == ([1, 2], [1, 2]), "it has the lease and goes on"


async def test_a_paused_handler_that_is_added_to_a_running_system_handles_nothing() -> None:
    store, seen, clock = BankStore(), Seen(), ManualClock()
    await store.append(*credited(1))
    await store.save_progress({"mail": 0})
    await HandlerControl(store).pause("mail")
    async with serving(store, clock=clock) as system:
        await system.supervisor("quick").start_child(seen.spec())
        await system.settled()
        await turns()
        assert (seen, (await info(system)).state) == ([], "paused")
        await system.resume("mail")
        await system.settled()
        assert seen == [1]
