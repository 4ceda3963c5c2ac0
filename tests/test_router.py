"""Which handlers get which events, and in which order of priorities."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.bank import EVENTS, Account, BankStore, BonusCredited, Credit, Credited, Debited, Noted, credited
from tests.faults import hand_out, move_on, nothing_moves_on, progress_is_written
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    ActorSystem,
    Backoff,
    DomainEvent,
    EventPriority,
    EventRegistry,
    StoreUnavailable,
    Supervisor,
    subscribe,
)
from uno_actors.handlers.router import CHECKPOINT_EVERY, TURN, RouterActor
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import Subscription
from uno_actors.store.codec import to_event, to_record
from uno_actors.testing import inspect

HIGH, NORMAL, LOW = EventPriority


def system_of(store: BankStore, *handlers: Any, **settings: Any) -> ActorSystem:
    quick = Supervisor("quick", handlers, max_restarts=None, backoff=Backoff(initial=0, max=0))
    return ActorSystem(store, aggregates=[Account], handlers=[], supervisors=[quick], **settings)


def collector(seen: list[Any], **subscription: Any) -> Callable[[DomainEvent], Any]:
    async def handler(event: DomainEvent) -> None:
        seen.append(event.model_dump(include={"amount", "text"}).popitem()[1])

    return subscribe(**subscription)(handler)


# --- matching ---


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        ({}, [1, 2, 3, "note", 4]),  # neither: everything, with a topic or without
        ({"topic_pattern": "bank.*"}, [1, 3, 4]),  # one token
        ({"topic_pattern": "bank.>"}, [1, 2, 3, 4]),  # one or more
        ({"topic_pattern": "bank.credited"}, [1, 4]),  # this one alone
        ({"topic_pattern": "shop.>"}, []),  # none
        ({"event_type": Credited}, [1, 2, 4]),  # a class and its subclasses
        ({"event_type": BonusCredited}, [2]),  # not its base
        ({"event_type": Noted}, ["note"]),  # without a topic
        ({"event_type": DomainEvent}, [1, 2, 3, "note", 4]),  # the root of them all
        ({"event_type": Credited, "topic_pattern": "bank.*"}, [1, 4]),  # both must fit
        ({"event_type": Debited, "topic_pattern": "bank.credited"}, []),  # and never do
        ({"event_type": Noted, "topic_pattern": ">"}, []),  # no topic fits no pattern
        ({"aggregate_type": Account}, [1, 3]),  # a class of aggregates
        ({"aggregate_type": "Shop"}, [4]),  # or the name of a type
        ({"aggregate_type": "shop"}, []),
        ({"aggregate_type": Account, "event_type": Debited}, [3]),  # both must fit
        ({"aggregate_type": Account, "topic_pattern": "bank.credited"}, [1]),
    ],
)
@pytest.mark.parametrize("start", ["live", "catching up"])
async def test_a_handler_gets_the_events_that_match_topic_and_types(
    subscription: dict[str, Any], expected: list[Any], start: str
) -> None:
    store, seen = BankStore(), []
    events = [
        Credited(amount=1, aggregate_id="alice", aggregate_type="Account"),
        BonusCredited(amount=2),
        Debited(amount=3, aggregate_id="alice", aggregate_type="Account"),
        Noted(text="note"),
        Credited(amount=4, aggregate_id="alice", aggregate_type="Shop"),
    ]
    if start == "catching up":
        await store.append(*events)
    async with system_of(store, collector(seen, name="h", start="earliest", **subscription)) as system:
        if start == "live":
            await store.append(*events)
        await system.settled()
        assert (await store.last_position()) == system.statistics().handlers["h"].position == 5
    assert seen == expected


async def test_a_type_that_is_registered_while_the_system_runs_is_matched() -> None:
    store, seen = BankStore(), []
    store.event_registry = EventRegistry([Credited])

    @subscribe(event_type=Credited, name="h")
    async def handler(event: Credited) -> None:
        seen.append(event.amount)

    async with system_of(store, handler) as system:
        await store.append(BonusCredited(amount=1))
        await system.settled()
        assert seen == [], "its class is not known to be a kind of Credited yet"
        store.event_registry.register(BonusCredited)
        await store.append(BonusCredited(amount=2))
        await system.settled()
    assert seen == [2]


async def test_events_that_no_handler_wants_move_every_checkpoint() -> None:
    store = BankStore()
    async with system_of(store, collector([], name="h", topic_pattern="shop.>")):
        await store.append(*credited(1, 2, 3))
    assert await store.checkpoints() == {"h": 3}


async def test_events_appended_directly_to_the_store_reach_the_handlers() -> None:
    store, seen = BankStore(), []
    async with system_of(store, collector(seen, name="h")) as system:
        await system.store.append(*credited(1))
        await system.aggregate(Account, "alice").ask(Credit(amount=2))
        await system.store.append(*credited(3, aggregate_id="bob"))
        await system.settled()
    assert seen == [1, 2, 3]


# --- priorities ---


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_for_each_event_high_comes_before_normal_and_normal_before_low(kind: str) -> None:
    store, log = BankStore(), []

    def make(name: str, priority: EventPriority) -> Any:
        async def handler(event: Credited) -> None:
            log.append(("begin", name, event.amount))
            await turns(3)
            log.append(("end", name, event.amount))

        def plain(event: Credited) -> None:
            log.append(("begin", name, event.amount))
            log.append(("end", name, event.amount))

        return subscribe(name=name, priority=priority)(handler if kind == "async" else plain)

    priorities = {"l1": LOW, "h1": HIGH, "n1": NORMAL, "h2": HIGH, "l2": LOW, "n2": NORMAL}
    async with system_of(store, *(make(*item) for item in priorities.items())) as system:
        await store.append(*credited(*range(30)))
        await system.settled()
    assert len(log) == 30 * 6 * 2
    for amount in range(30):
        ends = {name: log.index(("end", name, amount)) for name in priorities}
        begins = {name: log.index(("begin", name, amount)) for name in priorities}
        for higher, lower in ((HIGH, NORMAL), (NORMAL, LOW)):
            last_end = max(ends[name] for name, priority in priorities.items() if priority is higher)
            first_begin = min(begins[name] for name, priority in priorities.items() if priority is lower)
            assert last_end < first_begin
    for name in priorities:
        assert [entry[2] for entry in log if entry[:2] == ("begin", name)] == list(range(30))


async def test_handlers_of_one_priority_work_concurrently() -> None:
    store = BankStore()
    meeting = asyncio.Barrier(3)

    def make(name: str) -> Any:
        async def handler(event: Credited) -> None:
            await meeting.wait()

        return subscribe(name=name)(handler)

    async with system_of(store, make("a"), make("b"), make("c")) as system:
        await store.append(*credited(1, 2))
        await system.settled()


async def test_high_handlers_get_the_next_event_while_low_ones_handle_the_first() -> None:
    store, high_saw = BankStore(), []
    gate = asyncio.Event()

    @subscribe(name="low", priority=LOW)
    async def low(event: Credited) -> None:
        await gate.wait()

    async with system_of(store, low, collector(high_saw, name="high", priority=HIGH)) as system:
        await store.append(*credited(1, 2, 3))
        await until(lambda: high_saw == [1, 2, 3])
        gate.set()
        await system.settled()


async def test_a_failing_high_handler_gives_up_its_turn_at_once() -> None:
    """The others do not wait for its back-off."""
    store, clock, seen = BankStore(), ManualClock(), []

    @subscribe(name="failing", priority=HIGH)
    async def failing(event: Credited) -> None:
        raise ValueError("always")

    slow = Supervisor("slow", [failing], max_restarts=None, backoff=Backoff(initial=100, max=100))
    healthy = collector(seen, name="healthy", priority=LOW)
    async with ActorSystem(store, handlers=[healthy], supervisors=[slow], clock=clock):
        await store.append(*credited(1, 2, 3))
        await until(lambda: seen == [1, 2, 3])


# --- the window ---


@pytest.mark.parametrize("window", [1, 2, 7])
async def test_every_event_arrives_with_a_window_of_any_size(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.handlers.router.WINDOW", window)
    store, high_saw, low_saw = BankStore(), [], []

    @subscribe(name="high", priority=HIGH)
    async def high(event: Credited) -> None:
        await asyncio.sleep(0)
        high_saw.append(event.amount)

    @subscribe(name="low", priority=LOW)
    def low(event: Credited) -> None:
        low_saw.append(event.amount)

    async with system_of(store, high, low) as system:
        await store.append(*credited(*range(50)))
        await store.append(*credited(*range(50, 60)))
        await system.settled()
        await store.append(*credited(60))
        await system.settled()
    assert high_saw == low_saw == list(range(61))


async def test_no_more_events_are_in_memory_than_the_window_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.handlers.router.WINDOW", 10)
    store, gate = BankStore(), asyncio.Event()

    @subscribe(name="stuck")
    async def stuck(event: Credited) -> None:
        await gate.wait()

    async with system_of(store, stuck) as system:
        await store.append(*credited(*range(100)))
        await turns()
        assert inspect(system).router_position == 10
        assert system.statistics().handlers["stuck"].waiting == 9
        gate.set()
        await system.settled()
        assert system.statistics().handlers["stuck"].handled == 100


# --- giving back while handing out ---


async def test_events_given_back_by_a_full_handler_do_not_advance_those_still_being_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.handlers.subscription.CAPACITY", 1)
    store, log = BankStore(), []

    @subscribe(name="full", priority=HIGH)
    async def full(event: DomainEvent) -> None: ...

    @subscribe(name="high", event_type=Debited, priority=HIGH)
    async def high(event: Debited) -> None:
        await turns(5)
        log.append("high has ended")

    @subscribe(name="low", event_type=Debited, priority=LOW)
    async def low(event: Debited) -> None:
        log.append("low begins")

    async with system_of(store, full, high, low) as system:
        await store.append(Credited(amount=1), Debited(amount=2))
        await system.settled()
    assert log == ["high has ended", "low begins"]


def test_a_handler_that_falls_behind_during_delivery_disturbs_no_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dispatching makes one give events back, which moves others forward: each sees the order of the log."""
    monkeypatch.setattr("uno_actors.handlers.subscription.CAPACITY", 2)
    clock = ManualClock()
    full = Subscription(HandlerSpec("full", print, priority=HIGH), 0, EVENTS, clock, live=True)
    lows = [
        Subscription(HandlerSpec(f"low-{n}", print, priority=LOW), 0, EVENTS, clock, live=True) for n in "ab"
    ]
    router = RouterActor(BankStore(), [full, *lows], [0], clock)
    with nothing_moves_on(router):
        for position in range(1, 6):
            hand_out(router, _stored(position))
    assert full.state == "catching up"
    move_on(router)
    for low in lows:
        assert low.state == "catching up", "its queue was full as well"
        assert low.progress.position == 0
    assert router.under_way == 0
    assert [router.dispatched(each) for each in (full, *lows)] == [5, 5, 5]


def _stored(position: int) -> Any:
    from uno_actors.store.records import StoredRecord

    return StoredRecord(position, to_record(Credited(amount=position)))


# --- a store that fails ---


async def test_the_router_resumes_where_it_was_after_the_log_could_not_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, seen = BankStore(), []
    async with system_of(store, collector(seen, name="h")) as system:
        await store.append(*credited(1))
        await system.settled()
        store.read_log_errors.append(StoreUnavailable("memory:", "away"))
        await store.append(*credited(2))
        await store.append(*credited(3))
        await system.settled()
        assert "router failed" in caplog.text
    assert seen == [1, 2, 3]


async def test_checkpoints_that_could_not_be_written_are_written_later() -> None:
    store, clock = BankStore(), ManualClock()
    async with system_of(store, collector([], name="h"), clock=clock) as system:
        store.save_errors.append(StoreUnavailable("memory:", "away"))
        await store.append(*credited(1))
        await system.settled()
        clock.advance(CHECKPOINT_EVERY)
        await until(lambda: not store.save_errors)
        assert store.saved["h"] == 0
        await clock.advance_until(lambda: store.saved["h"] == 1)


class SlowToSave(BankStore):
    """Saves progress while its second gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.save_gate = asyncio.Event()
        self.save_gate.set()
        self.saving = False

    async def save_progress(self, *args: Any, **changes: Any) -> None:
        self.saving = True
        await self.save_gate.wait()
        self.saving = False
        await super().save_progress(*args, **changes)


async def test_the_last_checkpoint_waits_for_an_older_one_that_is_being_written() -> None:
    store, clock, goes_on = SlowToSave(), ManualClock(), asyncio.Event()

    @subscribe(name="h")
    async def handler(event: Credited) -> None:
        if event.amount == 2:
            await goes_on.wait()

    system = system_of(store, handler, clock=clock)
    await system.start()
    await store.append(*credited(1, 2))
    await until(lambda: inspect(system).handlers["h"].position == 1)
    store.save_gate.clear()
    await clock.advance_until(lambda: store.saving)
    goes_on.set()
    stopping = asyncio.create_task(system.stop())
    await until(lambda: inspect(system).handlers["h"].state == "stopped")
    await turns()
    store.save_gate.set()
    await stopping
    assert await store.checkpoints() == {"h": 2}


async def test_a_checkpoint_that_was_passed_over_is_written_soon() -> None:
    store, clock = BankStore(), ManualClock()
    async with system_of(store, collector([], name="h"), clock=clock) as system:
        async with progress_is_written(system, "h"):  # as while an event is set aside
            await store.append(*credited(1))
            await system.settled()
            clock.advance(CHECKPOINT_EVERY)
            await turns()
            assert await store.checkpoints() == {"h": 0}
        clock.advance(CHECKPOINT_EVERY)
        await turns()
        assert await store.checkpoints() == {"h": 1}


async def test_checkpoints_are_written_in_groups_and_only_when_they_moved() -> None:
    store, clock, saves = BankStore(), ManualClock(), []

    class Counting(BankStore):
        async def save_progress(self, checkpoints: Any, *others: Any, **named: Any) -> None:
            if checkpoints:  # else it is the status of the handlers
                saves.append(dict(checkpoints))
            await super().save_progress(checkpoints, *others, **named)

    store = Counting()
    handlers = [collector([], name="a"), collector([], name="b", topic_pattern="bank.debited")]
    async with system_of(store, *handlers, clock=clock) as system:
        saves.clear()
        for _ in range(5):
            await store.append(*credited(1, 2))
        await system.settled()
        assert saves == []
        clock.advance(CHECKPOINT_EVERY)
        await until(lambda: saves)
        clock.advance(10)
        await turns()
        assert saves == [{"a": 10, "b": 10}]


async def test_no_timer_outlives_the_system_whatever_happened() -> None:
    store, clock = BankStore(), ManualClock()
    async with system_of(store, collector([], name="h"), clock=clock) as system:
        for _ in range(3):
            store.read_log_errors.append(StoreUnavailable("memory:", "away"))
            await store.append(*credited(1))
            await until(lambda: not store.read_log_errors)
            position = await store.last_position()
            await clock.advance_until(lambda: inspect(system).router_position == position)  # noqa: B023
        await system.settled()
    for _ in range(10):
        clock.advance(2 * TURN)
    assert clock.pending() == 0


async def test_a_system_stops_while_its_router_has_failed() -> None:
    store, clock = BankStore(), ManualClock()
    async with system_of(store, collector([], name="h"), clock=clock, stop_timeout=0.05):
        store.read_log_errors.append(StoreUnavailable("memory:", "away"))
        await store.append(*credited(1))
        await until(lambda: not store.read_log_errors)
        await turns()
    for _ in range(10):
        clock.advance(2 * TURN)
    assert clock.pending() == 0


async def test_a_burst_does_not_make_quick_handlers_read_and_decode_events_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, decoded, seen = BankStore(), list[object](), list[object]()
    go_on = asyncio.Event()

    def decode(record: Any, *others: Any) -> Any:
        decoded.append(record)
        return to_event(record, *others)

    async def handle(event: Credited) -> None:
        await go_on.wait()
        seen.append(event)

    monkeypatch.setattr("uno_actors.handlers.subscription.to_event", decode)
    handlers = [HandlerSpec(tier.name, handle, Credited, None, tier) for tier in EventPriority]
    async with ActorSystem(store, aggregates=[], handlers=handlers) as system:
        await system.settled()
        await store.append(*credited(*range(1500)))
        await until(lambda: inspect(system).router_position == 1500)
        go_on.set()
        await system.settled()
    assert (len(decoded), len(seen)) == (1500, 4500)


async def test_an_event_type_registered_later_finds_its_handlers_from_then_on() -> None:
    store, seen = BankStore(), list[int]()
    store.event_registry = EventRegistry([Credited])

    class LateParent(DomainEvent):
        number: int

    class LateChild(LateParent):
        pass

    async def handle(event: LateParent) -> None:
        seen.append(event.number)

    async with ActorSystem(store, aggregates=[], handlers=[HandlerSpec("x", handle, LateParent)]) as system:
        await store.append(LateChild(number=1))
        await system.settled()
        store.event_registry.register(LateParent)
        store.event_registry.register(LateChild)
        await store.append(LateChild(number=2))
        await system.settled()
    assert seen == [2]


@pytest.mark.parametrize("priority", EventPriority, ids=str)
async def test_a_handler_added_while_others_handle_events_misses_none(priority: EventPriority) -> None:
    store, seen = BankStore(), list[int]()
    go_on = asyncio.Event()

    async def wait(event: Credited) -> None:
        await go_on.wait()

    async def handle(event: Credited) -> None:
        seen.append(event.amount)

    async with system_of(store, HandlerSpec("high", wait, Credited, priority=HIGH)) as system:
        await store.append(*credited(1, 2))
        await until(lambda: inspect(system).router_position == 2)
        comer = HandlerSpec("comer", handle, Credited, priority=priority, start="earliest")
        await system.supervisor("quick").start_child(comer)
        await turns()
        go_on.set()
        await store.append(*credited(3))
        await system.settled()
    assert seen == [1, 2, 3]
