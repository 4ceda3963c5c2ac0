"""Options of handlers: where they start, how long they may take, several events at once."""

import asyncio
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank import BankStore, Credited, credited
from tests.faults import record_changes
from tests.test_handler_actor import serving
from tests.waiting import checkpoint_is, turns, until
from uno_actors import (
    ActorSystem,
    Backoff,
    DomainEvent,
    EventPriority,
    HandlerContext,
    HandlerTimeout,
    Supervisor,
    subscribe,
)
from uno_actors.handlers.spec import HandlerSpec


def of(aggregate_id: str | None, *amounts: int) -> list[Credited]:
    return credited(*amounts, aggregate_id=aggregate_id)


# --- start ---

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (0, [1, 2, 3, 4, 5]),
        (3, [4, 5]),
        (4, [5]),
        (9, []),
        (NOON - timedelta(hours=1), [1, 2, 3, 4, 5]),
        (
            NOON + timedelta(minutes=1),
            [2, 3, 4, 5],
        ),  # at the first that is so late, not at the third, earlier one
        (NOON.replace(tzinfo=None) + timedelta(minutes=4), [4, 5]),
        (NOON + timedelta(days=1), [5]),  # the last is recorded after the start
    ],
)
async def test_a_handler_starts_after_a_position_or_at_a_time(start: Any, expected: list[int]) -> None:
    store, seen = BankStore(), []
    minutes = {1: 0, 2: 3, 3: 1, 4: 4}
    await store.append(
        *(Credited(amount=n, timestamp=NOON + timedelta(minutes=minute)) for n, minute in minutes.items())
    )

    @subscribe(name="starts", start=start)
    async def starts(event: Credited) -> None:
        seen.append(event.amount)

    async with serving(store, starts) as system:
        await store.append(*credited(5))
        await system.settled()
    async with serving(store, starts) as system:
        await system.settled()
    assert seen == expected


# --- bound methods and modules ---


async def test_a_bound_method_handles_events_with_its_object() -> None:
    class Totals:
        def __init__(self) -> None:
            self.total = 0

        @subscribe(event_type=Credited, name="totals")
        async def add(self, event: Credited) -> None:
            self.total += event.amount

    store, totals = BankStore(), Totals()
    async with ActorSystem(store, aggregates=[], handlers=[totals.add]) as system:
        await store.append(*credited(1, 2))
        await system.settled()
    assert totals.total == 3


async def test_a_bound_method_under_a_supervisor_is_not_served_twice() -> None:
    class Totals:
        def add(self, event: Credited) -> None: ...

    totals = Totals()
    method = subscribe(name="served once")(totals.add)
    supervisor = Supervisor("own", [totals.add])
    async with ActorSystem(BankStore(), aggregates=[], handlers=[method], supervisors=[supervisor]) as system:
        assert list(system.statistics().handlers) == ["served once"]


# --- timeout ---


async def test_a_coroutine_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    store, seen, cancelled = BankStore(), [], []

    @subscribe(name="slow", timeout=0.03, max_attempts=2)
    async def slow(event: Credited) -> None:
        if event.amount == 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(event.amount)
                raise
        seen.append(event.amount)

    async with serving(store, slow) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
    assert (seen, cancelled) == ([1, 3], [2, 2])
    (letter,) = await store.dead_letters()
    assert (letter.position, letter.attempts) == (2, 2)
    assert "HandlerTimeout: handler slow did not handle Credited at position 2 within 0.03 s" in letter.error
    assert "await asyncio.Event().wait()" in letter.traceback, "it shows where it was"


async def test_an_error_of_the_handlers_own_is_no_timeout() -> None:
    store = BankStore()

    @subscribe(name="own", timeout=60, max_attempts=1)
    async def own(event: Credited) -> None:
        raise TimeoutError("mine")

    async with serving(store, own) as system:
        await store.append(*credited(1))
        await system.settled()
    (letter,) = await store.dead_letters()
    assert letter.error == "TimeoutError: mine"


@pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"batch": 2}])
async def test_a_thread_that_takes_too_long_is_waited_for_before_the_next_attempt(options: Any) -> None:
    store, go_on = BankStore(), threading.Event()
    running, most, attempts = 0, 0, []

    @subscribe(name="thread", timeout=0.03, **options)
    def thread(given: Any, context: HandlerContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        attempts.append(context.attempt)
        if not go_on.is_set():
            go_on.wait(20)
        running -= 1

    seen = []

    @subscribe(name="other")
    async def other(event: Credited) -> None:
        seen.append(event.amount)

    async with serving(store, thread, other) as system:
        await store.append(*credited(1))
        await until(lambda: system.statistics().handlers["thread"].restarts)
        await store.append(*credited(2))
        await until(lambda: seen == [1, 2])
        assert attempts == [1], "while the thread is out there is no second attempt"
        assert (await store.checkpoints())["thread"] == 0
        go_on.set()
        await system.settled()
        statistics = system.statistics().handlers["thread"]
    assert most == 1
    assert attempts[:2] == [1, 2]
    assert (statistics.failures, statistics.dead_letters, statistics.position) == (1, 0, 2)


async def test_a_system_stops_while_a_thread_is_out() -> None:
    store, go_on = BankStore(), threading.Event()

    @subscribe(name="thread", timeout=0.02)
    def thread(event: Credited) -> None:
        go_on.wait(20)

    async with serving(store, thread) as system:
        await store.append(*credited(1))
        await until(lambda: system.statistics().handlers["thread"].restarts)
    go_on.set()
    assert await store.checkpoints() == {"thread": 0}


# --- concurrency ---


async def test_events_of_different_aggregates_are_handled_at_once_and_those_of_one_in_order() -> None:
    store = BankStore()
    gates: dict[object, asyncio.Event] = defaultdict(asyncio.Event)
    begun: list[int] = []
    ended: list[int] = []

    @subscribe(name="abreast", concurrency=2)
    async def abreast(event: Credited) -> None:
        begun.append(event.amount)
        await gates[event.amount].wait()
        ended.append(event.amount)

    @subscribe(name="last", start="earliest")
    async def last(event: Credited) -> None:
        if event.amount == 5:
            await gates["last"].wait()

    async with serving(store, abreast, last) as system:
        await store.append(*of("a", 1, 2), *of("b", 3), *of("c", 4))
        await until(lambda: begun == [1, 3])
        gates[3].set()
        await until(lambda: begun == [1, 3, 4])
        gates[4].set()
        await until(lambda: ended == [3, 4])
        await turns()
        await store.append(*of("d", 5))
        await until(lambda: begun == [1, 3, 4, 5])
        gates[5].set()
        await until(lambda: ended == [3, 4, 5])
        gates["last"].set()
        # The checkpoints of all handlers are written together.
        await until(lambda: checkpoint_is(store, "last", 5))
        assert await checkpoint_is(store, "abreast", 0), "below the checkpoint all are done"
        gates[1].set()
        await until(lambda: begun == [1, 3, 4, 5, 2])
        gates[2].set()
        await system.settled()
    assert await store.checkpoints() == {"abreast": 5, "last": 5}


async def test_a_failing_event_is_tried_again_and_those_done_beside_it_are_not() -> None:
    store, ended = BankStore(), []
    failures = {1: 1, 3: 99}

    @subscribe(name="abreast", concurrency=3, max_attempts=3)
    async def abreast(event: Credited) -> None:
        await asyncio.sleep(0)
        if failures.get(event.amount, 0) > 0:
            failures[event.amount] -= 1
            raise ValueError(event.amount)
        ended.append(event.amount)

    async with serving(store, abreast) as system:
        await store.append(*of("a", 1, 2), *of("b", 3, 4), *of("c", 5, 6))
        await system.settled()
        assert system.statistics().handlers["abreast"].failures == 4
    assert sorted(ended) == [1, 2, 4, 5, 6]
    assert failures == {1: 0, 3: 96}
    assert [(letter.position, letter.attempts) for letter in await store.dead_letters()] == [(3, 3)]


async def test_what_is_set_aside_takes_no_checkpoint_past_what_is_not_done() -> None:
    saves: list[tuple[dict[str, int], list[int]]] = []

    class Store(BankStore):
        async def save_progress(self, checkpoints: Any, dead_letters: Any = (), views: Any = ()) -> None:
            saves.append((dict(checkpoints), [letter.position for letter in dead_letters]))
            await super().save_progress(checkpoints, dead_letters, views)

    store, second_failed = Store(), asyncio.Event()

    @subscribe(name="abreast", concurrency=2, max_attempts=1)
    async def abreast(event: Credited) -> None:
        if event.amount == 1:
            await second_failed.wait()
        second_failed.set()
        raise ValueError(event.amount)

    async with serving(store, abreast) as system:
        await store.append(*of("a", 1), *of("b", 2))
        await system.settled()
    assert [save for save in saves if save[1]] == [({"abreast": 0}, [2]), ({"abreast": 2}, [1])]


async def test_a_handler_left_behind_goes_on_with_other_aggregates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.system.handler_host.TURN", 0.05)
    store, go_on, seen = BankStore(), asyncio.Event(), []

    @subscribe(name="abreast", concurrency=2, priority=EventPriority.HIGH)
    async def abreast(event: Credited) -> None:
        if event.amount == 1:
            await go_on.wait()
        seen.append(event.amount)

    after = []

    @subscribe(name="after")
    async def after_(event: Credited) -> None:
        after.append(event.amount)

    async with serving(store, abreast, after_) as system:
        await store.append(*of("a", 1))
        await until(lambda: after == [1])
        await store.append(*of("b", 2))
        await until(lambda: seen == [2])
        go_on.set()
        await system.settled()
    assert (seen, after) == ([2, 1], [1, 2])


async def test_plain_functions_of_different_aggregates_run_on_threads_at_once() -> None:
    store, both = BankStore(), threading.Barrier(2)

    @subscribe(name="abreast", concurrency=2)
    def abreast(event: Credited) -> None:
        both.wait(10)

    async with serving(store, abreast) as system:
        await store.append(*of("a", 1), *of("b", 2))
        await system.settled()
        assert system.statistics().handlers["abreast"].failures == 0


# --- batch ---


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_batch_is_what_is_there_in_order(kind: str) -> None:
    store, batches = BankStore(), []
    await store.append(*credited(*range(7)))

    @subscribe(name="batches", batch=3, start="earliest")
    async def batches_(events: list[Credited], context: HandlerContext) -> None:
        batches.append(([event.amount for event in events], context.position, context.attempt))

    @subscribe(name="batches", batch=3, start="earliest")
    def batches_plain(events: list[Credited], context: HandlerContext) -> None:
        batches.append(([event.amount for event in events], context.position, context.attempt))

    async with serving(store, batches_ if kind == "async" else batches_plain) as system:
        await system.settled()
    assert batches == [([0, 1, 2], 3, 1), ([3, 4, 5], 6, 1), ([6], 7, 1)]


async def test_of_a_failing_batch_the_poisonous_event_is_set_aside_alone() -> None:
    store, calls = BankStore(), []
    await store.append(*credited(*range(1, 9)))

    @subscribe(name="batches", batch=4, start="earliest", max_attempts=2)
    async def batches(events: list[Credited]) -> None:
        amounts = [event.amount for event in events]
        calls.append(amounts)
        if 2 in amounts:
            raise ValueError("two")

    async with serving(store, batches) as system:
        await system.settled()
    assert calls == [[1, 2, 3, 4], [1], [2], [2], [3], [4], [5, 6, 7, 8]]
    assert [(letter.position, letter.attempts) for letter in await store.dead_letters()] == [(2, 2)]


async def test_an_event_that_cannot_be_read_is_set_aside_alone_too() -> None:
    store, seen = BankStore(), []
    await store.append(*credited(1, 2, 3))
    record_changes(store, 2, event_type="Forgotten")

    @subscribe(name="batches", batch=4, start="earliest", max_attempts=1)
    def batches(events: list[DomainEvent]) -> None:
        seen.extend(event.amount for event in events if isinstance(event, Credited))

    async with serving(store, batches) as system:
        await system.settled()
    assert seen == [1, 3]
    assert [letter.position for letter in await store.dead_letters()] == [2]


def test_a_timeout_of_a_batch_names_the_batch() -> None:
    error = HandlerTimeout("mail", "a batch of 3 events from Credited at position 1 to 3", 2)
    assert "a batch of 3 events" in str(error)


# --- all of them against a model ---

FOR_EVER = 99
MAX_ATTEMPTS = 3
IDS = ["a", "b", "c", None]


@dataclass(frozen=True)
class Handler:
    name: str
    priority: EventPriority
    is_async: bool
    options: dict[str, Any] = field(hash=False)
    failures: dict[int, int] = field(hash=False)


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[list[list[Credited]], list[Handler]]:
    ids = draw(st.lists(st.lists(st.sampled_from(IDS), min_size=1, max_size=12), min_size=1, max_size=4))
    parts, number = [], 0
    for part in ids:
        parts.append([of(name, number + place)[0] for place, name in enumerate(part, start=1)])
        number += len(part)
    failures = st.dictionaries(st.integers(1, number), st.sampled_from([1, 2, FOR_EVER]), max_size=3)
    options = st.sampled_from(
        [{"concurrency": 2}, {"concurrency": 8}, {"batch": 1}, {"batch": 3}, {"timeout": 30.0}, {}]
    )
    handlers = [
        Handler(
            f"handler-{n}",
            draw(st.sampled_from(EventPriority)),
            draw(st.booleans()),
            draw(options),
            draw(st.one_of(st.just({}), failures)),
        )
        for n in range(draw(st.integers(1, 4)))
    ]
    return parts, handlers


class Run:
    """Writes down what each handler began and ended."""

    def __init__(self, handlers: list[Handler]) -> None:
        self.handlers = handlers
        self.store = BankStore()
        self.log: list[tuple[str, str, int, int]] = []
        self.failed: Counter[tuple[str, int]] = Counter()

    def system(self) -> ActorSystem:
        specs = [
            HandlerSpec(
                handler.name,
                self.target(handler),
                priority=handler.priority,
                start="earliest",
                max_attempts=MAX_ATTEMPTS,
                **handler.options,
            )
            for handler in self.handlers
        ]
        quick = Supervisor("quick", specs, max_restarts=None, backoff=Backoff(initial=0, max=0))
        return ActorSystem(self.store, aggregates=[], handlers=[], supervisors=[quick])

    def target(self, handler: Handler) -> Any:
        def begin(given: Any) -> None:
            size = len(given) if isinstance(given, list) else 1
            for event in given if isinstance(given, list) else [given]:
                self.log.append(("begin", handler.name, event.amount, size))

        def end(given: Any) -> None:
            events = given if isinstance(given, list) else [given]
            for event in events:
                # one that comes with others does not use up a failure: so all attempts alone are counted
                if self.failed[handler.name, event.amount] < handler.failures.get(event.amount, 0):
                    self.failed[handler.name, event.amount] += len(events) == 1
                    raise ValueError(event.amount)
            for event in events:
                self.log.append(("end", handler.name, event.amount, len(events)))

        async def handle(given: Any) -> None:
            begin(given)
            await asyncio.sleep(0)
            end(given)

        def handle_plain(given: Any) -> None:
            begin(given)
            end(given)

        return handle if handler.is_async else handle_plain

    async def check(self, events: list[Credited], *, restarted: bool) -> None:
        letters = [(letter.handler, letter.position) for letter in await self.store.dead_letters()]
        checkpoints = await self.store.checkpoints()
        for handler in self.handlers:
            poison = [e.amount for e in events if handler.failures.get(e.amount) == FOR_EVER]
            wanted = [event for event in events if event.amount not in poison]
            ended = [n for what, name, n, _ in self.log if (what, name) == ("end", handler.name)]
            assert [position for name, position in letters if name == handler.name] == poison
            assert checkpoints[handler.name] == len(events)
            if "concurrency" not in handler.options:
                assert ended == [event.amount for event in wanted]
            else:
                assert set(ended) == {event.amount for event in wanted}
                first = list(dict.fromkeys(ended))
                assert restarted or ended == first, "what was done is not repeated"
                for name in IDS:
                    mine = [event.amount for event in wanted if event.aggregate_id == name]
                    assert [number for number in first if number in mine] == mine
            begun = Counter(
                n for what, name, n, size in self.log if (what, name, size) == ("begin", handler.name, 1)
            )
            for event in [] if restarted else events:
                attempts = min(handler.failures.get(event.amount, 0) + 1, MAX_ATTEMPTS)
                in_batches = handler.options.get("batch", 1) > 1
                assert begun[event.amount] == attempts or (in_batches and begun[event.amount] <= attempts)

    def check_priorities(self, events: list[Credited]) -> None:
        place = {entry[:3]: index for index, entry in reversed(list(enumerate(self.log)))}
        for event in events:
            for before in (handler for handler in self.handlers if not any(handler.failures.values())):
                for after in (handler for handler in self.handlers if handler.priority > before.priority):
                    assert (
                        place["end", before.name, event.amount] < place["begin", after.name, event.amount]
                    ), (before, after)


@given(scenarios(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_with_any_options_every_handler_gets_every_event_in_its_order_and_after_those_before_it(
    scenario: tuple[list[list[Credited]], list[Handler]], wait: bool
) -> None:
    parts, handlers = scenario
    run = Run(handlers)
    events = [event for part in parts for event in part]

    async def play() -> None:
        async with run.system() as system:
            for part in parts:
                await run.store.append(*part)
                if wait:
                    await asyncio.sleep(0)
            await system.settled()
        await run.check(events, restarted=False)
        run.check_priorities(events)

    asyncio.run(play())


@given(scenarios(), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_same_with_little_room_and_a_new_system_for_each_part(
    scenario: tuple[list[list[Credited]], list[Handler]], window: int, capacity: int
) -> None:
    parts, handlers = scenario
    run = Run(handlers)

    async def play() -> None:
        for part in parts:
            async with run.system():
                await run.store.append(*part[: len(part) // 2])
                await asyncio.sleep(0)
                await run.store.append(*part[len(part) // 2 :])
        async with run.system() as system:
            await system.settled()
        await run.check([event for part in parts for event in part], restarted=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.handlers.router.WINDOW", window)
        patch.setattr("uno_actors.handlers.subscription.CAPACITY", capacity)
        patch.setattr("uno_actors.handlers.concurrent.LOOK_AHEAD", capacity)
        asyncio.run(play())
