"""One handler: its attempts, its failures, and how it falls behind and catches up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bank import EVENTS, Account, BankStore, Credit, Credited, Debit, Debited, Noted, credited
from tests.faults import as_it_gives_up, handler_falls_behind
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    ActorSystem,
    Backoff,
    DomainEvent,
    EventHandler,
    EventPriority,
    HandlerContext,
    StoreUnavailable,
    Supervisor,
    SupervisorGaveUp,
    SystemNotRunning,
    subscribe,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscription import CAPACITY, Delivery, Subscription
from uno_actors.store.codec import to_record
from uno_actors.store.records import PAGE, StoredRecord
from uno_actors.testing import inspect

AT_ONCE = Backoff(initial=0, max=0)


@asynccontextmanager
async def serving(
    store: BankStore, *handlers: Any, budget: int | None = None, **settings: Any
) -> AsyncIterator[ActorSystem]:
    """A system that restarts handlers at once."""
    supervisor = Supervisor("quick", handlers, max_restarts=budget, backoff=AT_ONCE)
    async with ActorSystem(
        store, aggregates=[Account], handlers=[], supervisors=[supervisor], **settings
    ) as system:
        yield system


def as_kind(kind: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``function`` as a handler that is a coroutine function or a plain one."""
    if kind == "plain":
        return function

    async def handler(event: Any) -> Any:
        await asyncio.sleep(0)
        return function(event)

    return handler


KINDS = pytest.mark.parametrize("kind", ["async", "plain"])


# --- the subscription, by itself ---


def subscription(*, live: bool = True, position: int = 0) -> Subscription:
    spec = HandlerSpec("x", lambda event: None)
    made = Subscription(spec, position, EVENTS, ManualClock(), live=live)
    made.given_back = []  # type: ignore[attr-defined]
    made.give_back = made.given_back.append  # type: ignore[attr-defined]
    return made


def delivery(position: int) -> Delivery:
    return Delivery(StoredRecord(position, to_record(Credited(amount=position))))


def test_a_live_subscription_takes_only_events_that_it_has_not_had() -> None:
    it = subscription(position=5)
    assert not it.offer(delivery(5))
    assert it.offer(delivery(6))
    assert len(it.queue) == 1
    assert not subscription(live=False).offer(delivery(6))


def test_it_is_woken_when_it_was_idle() -> None:
    it, woken = subscription(), []
    it.wake = lambda: woken.append(1)
    it.offer(delivery(3))
    it.offer(delivery(4))
    assert woken == [1]


def test_the_checkpoint_of_an_idle_handler_is_where_the_router_is() -> None:
    it = subscription(position=5)
    assert it.checkpoint(9) == 9
    it.offer(delivery(12))
    assert it.checkpoint(12) == 11, "nothing before its first waiting event is for it"
    it.begin([it.queue.popleft()])
    assert it.checkpoint(15) == 11, "what is being handled is not done"
    it.done(delivery(12))
    it.release()
    assert it.checkpoint(15) == 15
    it.fall_behind()
    assert it.checkpoint(20) == 12


def test_falling_behind_gives_all_queued_events_back() -> None:
    it = subscription()
    for position in (1, 2, 3):
        it.offer(delivery(position))
    it.begin([it.queue.popleft()])
    it.fall_behind()
    assert [given.position for given in it.given_back] == [1, 2, 3]  # type: ignore[attr-defined]
    assert (it.state, len(it.queue), len(it.under_way), it.busy_at) == ("catching up", 0, 0, 1)
    it.done(delivery(1))
    assert it.busy_since is None
    assert len(it.given_back) == 3, "given back once"  # type: ignore[attr-defined]
    assert it.progress.position == 1
    assert not it.offer(delivery(4))


def test_a_full_queue_makes_it_fall_behind() -> None:
    it = subscription()
    for position in range(1, CAPACITY + 1):
        assert it.offer(delivery(position))
    assert not it.offer(delivery(CAPACITY + 1))
    assert it.state == "catching up"
    assert len(it.given_back) == CAPACITY  # type: ignore[attr-defined]


def test_attempts_are_counted_for_one_event() -> None:
    it = subscription()
    failures = it.failures
    assert failures.attempt(3) == 1
    it.failed(3)
    first = it.failed(3)
    assert (failures.attempt(3), failures.attempt(4), failures.total) == (3, 1, 2)
    failed = it.failed(4)
    assert (failures.attempt(4), failed.attempts, failures.total) == (2, 1, 3)
    assert failed.first_failed >= first.first_failed
    assert it.state == "restarting"


# --- failures ---


@KINDS
async def test_a_failing_event_is_retried_then_set_aside_and_the_handler_continues(kind: str) -> None:
    store, seen = BankStore(), []
    attempts: list[tuple[int, int]] = []

    def handle(event: Credited) -> None:
        seen.append(event.amount)
        if event.amount == 2:
            raise ValueError("two is too many")

    async def count(event: Credited, context: HandlerContext) -> None:
        attempts.append((event.amount, context.attempt))
        handle(event)

    def count_plain(event: Credited, context: HandlerContext) -> None:
        attempts.append((event.amount, context.attempt))
        handle(event)

    target = count if kind == "async" else count_plain
    handler = subscribe(event_type=Credited, name="mail", max_attempts=3)(target)
    async with serving(store, handler) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
        statistics = system.statistics().handlers["mail"]
    assert seen == [1, 2, 2, 2, 3]
    assert attempts == [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]
    (letter,) = await store.dead_letters()
    assert (letter.handler, letter.position, letter.event_type) == ("mail", 2, "Credited")
    assert (letter.attempts, letter.error) == (3, "ValueError: two is too many")
    assert 'raise ValueError("two is too many")' in letter.traceback
    assert letter.first_failed < letter.last_failed
    assert (statistics.handled, statistics.failures, statistics.restarts) == (2, 3, 3)
    assert (statistics.dead_letters, statistics.position, statistics.state) == (1, 3, "live")


@KINDS
async def test_an_event_that_fails_once_is_handled_at_the_second_attempt(kind: str) -> None:
    store, seen = BankStore(), []

    def handle(event: Credited) -> None:
        seen.append(event.amount)
        if seen == [1, 2]:
            raise OSError("network")

    async with serving(store, subscribe(name="mail")(as_kind(kind, handle))) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
    assert seen == [1, 2, 2, 3]
    assert await store.dead_letters() == []


@KINDS
@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()]
)
async def test_whatever_a_handler_raises_is_its_own_failure(kind: str, error: BaseException) -> None:
    store, seen = BankStore(), []

    def handle(event: Credited) -> None:
        if event.amount == 1:
            raise error
        seen.append(event.amount)

    handler = subscribe(name="mail", max_attempts=2)(as_kind(kind, handle))
    async with serving(store, handler) as system:
        await store.append(*credited(1, 2))
        await system.settled()
    assert seen == [2]
    (letter,) = await store.dead_letters()
    assert letter.attempts == 2


async def test_a_plain_function_that_returns_a_coroutine_has_it_awaited() -> None:
    """As a decorator does that wraps a coroutine function in a plain one; otherwise events would be lost."""
    store, seen = BankStore(), []

    async def really(event: Credited) -> None:
        await asyncio.sleep(0)
        seen.append(event.amount)
        if event.amount == 2:
            raise ValueError("in the coroutine")

    @subscribe(name="wrapped", max_attempts=1)
    def wrapper(event: Credited) -> Any:
        return really(event)

    async with serving(store, wrapper) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
    assert seen == [1, 2, 3]
    assert [letter.position for letter in await store.dead_letters()] == [2]


async def test_a_plain_function_that_returns_the_future_of_a_failed_ask_has_failed() -> None:
    store = BankStore()

    @subscribe(Debited, name="asks", max_attempts=1)
    def asks(event: Debited, context: HandlerContext) -> Any:
        return context.system.aggregate(Account, "alice").ask(Credit(amount=event.amount))

    @subscribe(Credited, name="is refused", max_attempts=1)
    def is_refused(event: Credited, context: HandlerContext) -> Any:
        return context.system.aggregate(Account, "alice").ask(Debit(amount=1000))

    async with serving(store, asks, is_refused) as system:
        await store.append(Debited(amount=1))
        await system.settled()
    assert [(letter.handler, letter.position) for letter in await store.dead_letters()] == [("is refused", 2)]


@pytest.mark.parametrize("given", ["class", "instance"])
async def test_a_handler_class_is_instantiated_again_on_each_restart_and_an_instance_is_kept(
    given: str,
) -> None:
    store = BankStore()
    made: list[Any] = []
    failed: list[int] = []

    class Fragile(EventHandler[Credited]):
        def __init__(self) -> None:
            super().__init__(Credited)
            self.seen: list[int] = []
            made.append(self)

        async def handle(self, event: Credited) -> None:
            self.seen.append(event.amount)
            if event.amount == 2 and not failed:
                failed.append(2)
                raise ValueError("once")

    async with serving(store, Fragile if given == "class" else Fragile()) as system:
        before = list(made)
        await store.append(*credited(1, 2, 3))
        await system.settled()
    if given == "class":
        (new,) = made[len(before) :]
        assert before[-1].seen == [1, 2]
        assert new.seen == [2, 3]
    else:
        assert made == before
        assert made[-1].seen == [1, 2, 2, 3]


async def test_a_class_that_cannot_be_instantiated_on_a_restart_is_tried_again_and_loses_no_event() -> None:
    store, seen = BankStore(), []
    refuse: list[int] = []

    @subscribe(name="fragile", max_attempts=2)
    class Fragile(EventHandler[Credited]):
        def __init__(self) -> None:
            super().__init__(Credited)
            if refuse:
                refuse.pop()
                raise OSError("no connection")

        def handle(self, event: Credited) -> None:
            seen.append(event.amount)
            if seen == [1]:
                refuse.extend([1] * 6)
                raise ValueError("once")

    async with serving(store, Fragile) as system:
        await store.append(*credited(1, 2))
        await system.settled()
        assert system.statistics().handlers["fragile"].restarts == 7
    assert seen == [1, 1, 2]
    assert await store.dead_letters() == []


async def test_an_event_that_cannot_be_decoded_becomes_a_dead_letter_of_its_handlers_only() -> None:
    class UnknownToTheBank(DomainEvent):
        topic: str | None = "bank.strange"

    store, everything, some = BankStore(), [], []

    @subscribe(name="everything", max_attempts=2)
    async def all_of_it(event: DomainEvent) -> None:
        everything.append(event.event_type)

    @subscribe(event_type=Credited, name="credits")
    async def credits_only(event: Credited) -> None:
        some.append(event.amount)

    async with serving(store, all_of_it, credits_only) as system:
        await store.append(*credited(1), UnknownToTheBank(), *credited(2))
        await system.settled()
        assert system.statistics().handlers["credits"].failures == 0
    assert everything == ["Credited", "Credited"]
    assert some == [1, 2]
    (letter,) = await store.dead_letters()
    assert (letter.handler, letter.position, letter.attempts) == ("everything", 2, 2)
    assert letter.error.startswith("UnknownEventType: event type 'UnknownToTheBank'")


async def test_a_store_that_fails_while_an_event_is_set_aside_is_asked_again() -> None:
    store, seen = BankStore(), []

    @subscribe(name="mail", max_attempts=2)
    async def mail(event: Credited) -> None:
        seen.append(event.amount)
        if event.amount == 1:
            store.save_errors.extend([StoreUnavailable("memory:", "away")] * 2 if seen == [1, 1] else [])
            raise ValueError("poison")

    async with serving(store, mail) as system:
        await store.append(*credited(1, 2))
        await system.settled()
    assert seen == [1, 1, 2]
    (letter,) = await store.dead_letters()
    assert (letter.position, letter.attempts) == (1, 2)


async def test_a_store_that_fails_while_a_handler_catches_up_is_not_blamed_on_an_event() -> None:
    """Least of all of the one that was set aside before."""
    store, seen = BankStore(), []
    quiet = ManualClock()  # so that nobody but the handler reads the log meanwhile

    @subscribe(name="mail", max_attempts=1)
    async def mail(event: Credited) -> None:
        seen.append(event.amount)
        if event.amount == 1:
            raise ValueError("poison")
        if event.amount == 3:
            handler_falls_behind(system, "mail")
            await store.append(*credited(4))
            await until(lambda: inspect(system).router_position == 4)
            await turns()
            store.read_log_errors.extend([StoreUnavailable("memory:", "away")] * 3)

    async with serving(store, mail, clock=quiet) as system:
        await store.append(*credited(1, 2, 3))
        await quiet.advance_until(lambda: 4 in seen, step=0.001)
        await system.settled()
        assert system.statistics().handlers["mail"].restarts == 4
    assert store.read_log_errors == []
    assert seen == [1, 2, 3, 4]
    (letter,) = await store.dead_letters()
    assert (letter.position, letter.error) == (1, "ValueError: poison")


# --- the supervisor's budget ---


async def test_a_handler_that_resumes_after_a_failure_of_the_store_blames_no_event() -> None:
    store, seen = BankStore(), list[int]()

    async def handle(event: Credited) -> None:
        if event.amount == 2:
            raise ValueError("poison")
        seen.append(event.amount)

    resuming = Supervisor(
        "resuming", [HandlerSpec("mail", handle, Credited)], directives={Exception: "resume"}
    )
    async with ActorSystem(store, aggregates=[], handlers=[], supervisors=[resuming]) as system:
        await store.append(*credited(1, 2, 3))
        await system.settled()
        await system.pause("mail")
        await store.append(*credited(4, 5))
        await turns()
        store.read_log_errors = [StoreUnavailable("memory:", "for a test")]
        await system.resume("mail")
        await system.settled()
        assert not store.read_log_errors
        assert system.statistics().handlers["mail"].restarts == 0
    assert seen == [1, 3, 4, 5]
    ((position, error),) = [(letter.position, letter.error) for letter in await store.dead_letters()]
    assert (position, error) == (2, "ValueError: poison")


async def test_a_supervisor_over_its_budget_gives_up_and_the_system_ends_with_its_error() -> None:
    store, healthy = BankStore(), []

    @subscribe(name="failing")
    async def failing(event: Credited) -> None:
        raise ValueError("always")

    @subscribe(name="sibling")
    async def sibling(event: Credited) -> None:
        healthy.append(event.amount)

    with pytest.raises(
        SupervisorGaveUp, match="'quick' gave up: failing failed again after 2 restarts"
    ) as caught:
        async with serving(store, failing, sibling, budget=2) as system:
            account = system.aggregate(Account, "alice")
            await account.ask(Credit(amount=1))
            await until(lambda: system.failure)
            await system.stop()
            statistics = system.statistics()
            with pytest.raises(SystemNotRunning) as refused:
                account.ask(Credit(amount=1))
            assert isinstance(refused.value.__cause__, SupervisorGaveUp)
    assert (caught.value.supervisor, caught.value.child) == ("quick", "failing")
    assert "ValueError: always" in str(caught.value)
    assert {name: it.state for name, it in statistics.handlers.items()} == {
        "failing": "stopped",
        "sibling": "stopped",
    }
    assert statistics.handlers["failing"].failures == 3
    assert await store.dead_letters() == [], "giving up sets nothing aside"
    assert (await store.checkpoints())["failing"] == 0


async def test_a_supervisor_that_gives_up_stops_the_other_children_at_once() -> None:
    states: list[dict[str, str]] = []

    def failing(event: Credited) -> None:
        raise ValueError("always")

    children = [HandlerSpec("a", lambda event: None), HandlerSpec("b", failing)]
    others = [HandlerSpec("other", lambda event: None)]
    supervisors = [Supervisor("gives up", children, max_restarts=0), Supervisor("stays", others)]
    store = BankStore()
    system = ActorSystem(store, handlers=[], supervisors=supervisors)
    as_it_gives_up(
        system, lambda: states.append({name: it.state for name, it in inspect(system).handlers.items()})
    )
    with pytest.raises(SupervisorGaveUp):
        async with system:
            await store.append(*credited(1))
            await until(lambda: system.failure)
    assert states == [{"a": "stopped", "b": "stopped", "other": "live"}]


async def test_an_error_of_the_block_wins_over_that_of_a_supervisor() -> None:
    @subscribe(name="failing")
    async def failing(event: Credited) -> None:
        raise ValueError("always")

    store = BankStore()
    with pytest.raises(KeyError, match="mine"):
        async with serving(store, failing, budget=0) as system:
            await store.append(*credited(1))
            await until(lambda: system.failure)
            raise KeyError("mine")


async def test_a_supervisor_that_gives_up_while_the_system_still_starts_ends_it_all_the_same() -> None:
    store = BankStore()
    await store.append(*credited(1))

    @subscribe(name="failing", start="earliest")
    async def failing(event: Credited) -> None:
        raise ValueError("always")

    others = [HandlerSpec(f"other-{n}", lambda event: None) for n in range(50)]
    supervisors = [
        Supervisor("first", [failing], max_restarts=0, backoff=AT_ONCE),
        Supervisor("second", others),
    ]
    with pytest.raises(SupervisorGaveUp):
        async with ActorSystem(store, handlers=[], supervisors=supervisors) as system:
            await until(lambda: repr(system) == "<ActorSystem system (stopped)>")


async def test_stopping_while_a_handler_waits_for_its_restart_neither_waits_nor_restarts_it() -> None:
    store, clock, seen = BankStore(), ManualClock(), []

    @subscribe(name="failing")
    async def failing(event: Credited) -> None:
        seen.append(event.amount)
        raise ValueError("always")

    slowly = Supervisor("slow", [failing], max_restarts=None, backoff=Backoff(initial=50, max=50))
    async with ActorSystem(store, handlers=[], supervisors=[slowly], clock=clock) as system:
        await store.append(*credited(1))
        await until(lambda: system.statistics().handlers["failing"].failures)
        await turns()
        assert system.statistics().handlers["failing"].state == "restarting"
    clock.advance(100)
    await turns()
    assert seen == [1]
    assert system.statistics().handlers["failing"].restarts == 0
    assert (await store.checkpoints())["failing"] == 0


# --- falling behind ---


@KINDS
async def test_a_handler_whose_queue_is_full_falls_behind_and_catches_up_without_gap_or_duplicate(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.handlers.subscription.CAPACITY", 10)
    store, seen, states = BankStore(), [], set()
    gate = threading.Event()

    def handle(event: Credited) -> None:
        gate.wait()
        seen.append(event.amount)

    async def handle_async(event: Credited) -> None:
        await asyncio.to_thread(gate.wait)
        seen.append(event.amount)

    handler = subscribe(name="slow")(handle if kind == "plain" else handle_async)
    async with serving(store, handler) as system:
        for start in range(0, 200, 20):
            await store.append(*credited(*range(start, start + 20)))
            await turns()
            states.add(system.statistics().handlers["slow"].state)
            assert system.statistics().handlers["slow"].waiting <= 10
        gate.set()
        await system.settled()
        await store.append(*credited(200))
        await system.settled()
        assert system.statistics().handlers["slow"].state == "live"
    assert "catching up" in states
    assert seen == list(range(201))


@KINDS
async def test_a_stuck_handler_loses_its_turn_and_others_continue(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock, seen, stuck_saw = BankStore(), ManualClock(), [], []
    gate = threading.Event()

    def handle(event: Credited) -> None:
        stuck_saw.append(event.amount)
        gate.wait()

    async def handle_async(event: Credited) -> None:
        stuck_saw.append(event.amount)
        await asyncio.to_thread(gate.wait)

    stuck = subscribe(name="stuck", priority=EventPriority.HIGH)(handle if kind == "plain" else handle_async)

    @subscribe(name="healthy", priority=EventPriority.LOW)
    async def healthy(event: Credited) -> None:
        seen.append(event.amount)

    async with serving(store, stuck, healthy, clock=clock) as system:
        await store.append(*credited(1, 2, 3))
        await until(lambda: stuck_saw)
        clock.advance(0.9)
        await turns()
        assert seen == [], "its turn is not over"
        clock.advance(0.7)
        await until(lambda: seen == [1, 2, 3])
        assert "handler is slow, the others continue without it" in caplog.text
        assert system.statistics().handlers["stuck"].state == "catching up"
        gate.set()
        await system.settled()
        assert system.statistics().handlers["stuck"].state == "live"
        await store.append(*credited(4))
        await system.settled()
    assert stuck_saw == [1, 2, 3, 4]
    assert seen == [1, 2, 3, 4]


class GappyStore(BankStore):
    """Positions only grow: there is no promise that they grow by one."""

    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        page = await super().read_log(after // 10, limit)
        return [StoredRecord(position * 10, record) for position, record in page]

    async def last_position(self) -> int:
        return await super().last_position() * 10


@pytest.mark.parametrize("store_type", [BankStore, GappyStore])
async def test_a_handler_that_catches_up_does_not_overtake_those_of_higher_priority(
    store_type: type[BankStore],
) -> None:
    """It has lost the right to keep others waiting, and must not run before them."""
    store, order = store_type(), []
    gate, at_three, failed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @subscribe(name="high", priority=EventPriority.HIGH)
    async def high(event: Credited) -> None:
        if event.amount == 3:
            at_three.set()
            await gate.wait()
        order.append(("high", event.amount))

    @subscribe(name="low", priority=EventPriority.LOW)
    async def low(event: Credited) -> None:
        if not failed.is_set():
            await at_three.wait()
            failed.set()
            raise ValueError("once")
        order.append(("low", event.amount))

    async with serving(store, high, low) as system:
        await store.append(*credited(1, 2, 3))
        await until(lambda: ("low", 2) in order)
        await turns()
        assert order == [("high", 1), ("high", 2), ("low", 1), ("low", 2)]
        gate.set()
        await system.settled()
    assert order[4:] == [("high", 3), ("low", 3)]


async def test_catching_up_yields_the_loop_between_pages() -> None:
    store, ticks, ticks_at = BankStore(), 0, []
    await store.append(*credited(*range(6 * PAGE)))

    @subscribe(name="reader", start="earliest")
    async def reader(event: Credited) -> None:
        ticks_at.append(ticks)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    task = asyncio.ensure_future(tick())
    async with serving(store, reader) as system:
        await system.settled()
    task.cancel()
    assert len(ticks_at) == 6 * PAGE
    assert max(ticks_at.count(moment) for moment in set(ticks_at)) <= PAGE


# --- where it begins and goes on ---


async def test_latest_begins_at_the_next_event_and_earliest_at_the_first() -> None:
    store, latest_saw, earliest_saw = BankStore(), [], []
    await store.append(*credited(1, 2))

    @subscribe(name="latest")
    async def latest(event: Credited) -> None:
        latest_saw.append(event.amount)

    @subscribe(name="earliest", start="earliest")
    def earliest(event: Credited) -> None:
        earliest_saw.append(event.amount)

    async with serving(store, latest, earliest) as system:
        await store.append(*credited(3))
        await system.settled()
    assert (latest_saw, earliest_saw) == ([3], [1, 2, 3])


@KINDS
async def test_a_handler_resumes_at_its_checkpoint_in_the_next_system(kind: str) -> None:
    store, seen = BankStore(), []
    handler = subscribe(event_type=Credited, name="reader")(
        as_kind(kind, lambda event: seen.append(event.amount))
    )
    async with serving(store, handler):
        await store.append(*credited(1, 2), Noted(text="not for it"))
    assert (await store.checkpoints())["reader"] == 3
    await store.append(*credited(3, 4))
    async with serving(store, handler) as system:
        await store.append(*credited(5))
        await system.settled()
    assert seen == [1, 2, 3, 4, 5]


async def test_where_latest_began_is_remembered_before_the_first_event() -> None:
    store, seen = BankStore(), []
    await store.append(*credited(1, 2))

    @subscribe(name="latest")
    async def latest(event: Credited) -> None:
        seen.append(event.amount)

    async with serving(store, latest):
        assert await store.checkpoints() == {"latest": 2}
    await store.append(*credited(3))
    async with serving(store, latest) as system:
        await system.settled()
    assert seen == [3]


async def test_the_context_shows_what_is_being_handled() -> None:
    store, contexts = BankStore(), []

    @subscribe(name="curious")
    async def curious(event: Credited, context: HandlerContext) -> None:
        context.logger.info("handled")
        contexts.append(context)

    async with serving(store, curious) as system:
        await store.append(*credited(1, 2))
        await system.settled()
        assert [(it.position, it.attempt, it.handler, it.system) for it in contexts] == [
            (1, 1, "curious", system),
            (2, 1, "curious", system),
        ]


async def test_a_plain_handler_works_on_a_thread_in_batches_and_in_order() -> None:
    store, seen, threads = BankStore(), [], set()

    @subscribe(name="plain")
    def plain(event: Credited) -> None:
        threads.add(threading.current_thread())
        seen.append(event.amount)

    async with serving(store, plain) as system:
        for start in range(0, 1000, 100):
            await store.append(*credited(*range(start, start + 100)))
        await system.settled()
    assert seen == list(range(1000))
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("start", ["live", "catching up"])
async def test_a_slow_plain_handler_returns_within_a_batch_and_continues_with_the_rest(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.handlers.calls.BATCH_SECONDS", -1.0)
    store, seen = BankStore(), []

    @subscribe(name="plain", start="earliest")
    def plain(event: Credited) -> None:
        seen.append(event.amount)

    if start == "catching up":
        await store.append(*credited(*range(20)))
    async with serving(store, plain) as system:
        if start == "live":
            await store.append(*credited(*range(20)))
        await system.settled()
        assert system.statistics().handlers["plain"].handled == 20
    assert seen == list(range(20))


async def test_a_plain_handler_that_fails_within_a_batch_does_not_repeat_the_events_before() -> None:
    store, seen = BankStore(), []

    @subscribe(name="plain", max_attempts=1)
    def plain(event: Credited) -> None:
        seen.append(event.amount)
        if event.amount % 7 == 0:
            raise ValueError("seven")

    async with serving(store, plain) as system:
        await store.append(*credited(*range(50)))
        await system.settled()
    assert seen == list(range(50))
    assert [letter.position - 1 for letter in await store.dead_letters()] == list(range(0, 50, 7))


async def test_it_wants_events_by_type_and_topic() -> None:
    spec = HandlerSpec("x", lambda event: None, event_type=Debited)
    it = Subscription(spec, 0, EVENTS, ManualClock(), live=True)
    assert it.wants(to_record(Debited(amount=1)))
    assert not it.wants(to_record(Credited(amount=1)))
