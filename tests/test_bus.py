"""The event bus, publishers, and the defaults of the process."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import found_anew
from tests.machine import patience
from tests.tracing import lines_run_by
from tests.waiting import turns, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventBus,
    EventHandler,
    EventPriority,
    EventPublisher,
    HandlerContext,
    InvalidHandler,
    InvalidTopic,
    Projection,
    StoreUnavailable,
    SystemNotRunning,
    event_defaults,
    get_event_bus,
    get_event_publisher,
    get_event_store,
    handles,
    open_store,
    subscribe,
)
from uno_actors.actors.future import Future
from uno_actors.causality import current_cause
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import HandlerRegistry, gather, handler_registry
from uno_actors.topics import TopicPattern

HIGH, NORMAL, LOW = EventPriority


class Rang(DomainEvent):
    number: int = 0
    topic: str | None = "bells.rang"


class RangTwice(Rang):
    topic: str | None = "bells.twice.rang"


class Fell(DomainEvent):
    topic: str | None = "bells.fell"


@pytest.fixture(autouse=True)
def registry() -> Iterator[HandlerRegistry]:
    """The process-wide registry, empty, and defaults that serve it."""
    before = dict(handler_registry)
    handler_registry.clear()
    with event_defaults():
        yield handler_registry
    handler_registry.clear()
    handler_registry.update(before)


class Calls(list[Any]):
    """Handlers that note here when they were called."""

    def handler(self, name: str) -> Callable[[DomainEvent], Any]:
        async def handle(event: DomainEvent) -> None:
            self.append(name)

        return handle

    def failing(self, name: str, error: BaseException) -> Callable[[DomainEvent], Any]:
        async def handle(event: DomainEvent) -> None:
            self.append(name)
            raise type(error)(*error.args)  # a new one each time: one instance gathers the lines of all

        return handle


# --- which handlers ----------------------------------------------------------------------------------------


async def test_an_event_finds_handlers_by_its_type_and_base_types() -> None:
    bus, calls = EventBus(), Calls()
    for event_type in (DomainEvent, Rang, RangTwice, Fell, None):
        bus.subscribe(calls.handler(str(event_type and event_type.__name__)), event_type)
    await bus.publish(Rang())
    assert calls == ["DomainEvent", "Rang", "None"]
    calls.clear()
    await bus.publish(RangTwice())
    assert calls == ["DomainEvent", "Rang", "RangTwice", "None"]


async def test_an_event_finds_handlers_by_topic_and_must_fit_the_type_too() -> None:
    bus, calls = EventBus(), Calls()
    for pattern in ("bells.*", "bells.>", "*.fell", "bells.rang"):
        bus.subscribe(calls.handler(pattern), topic_pattern=pattern)
    bus.subscribe(calls.handler("both"), Rang, "bells.>")
    await bus.publish(Rang())
    assert calls == ["bells.*", "bells.>", "bells.rang", "both"]
    calls.clear()
    await bus.publish(Rang(topic=None))
    assert calls == []
    await bus.publish(Fell())
    assert calls == ["bells.*", "bells.>", "*.fell"]


async def test_an_event_finds_handlers_by_the_type_of_its_aggregate() -> None:
    bus, calls = EventBus(), Calls()
    bus.subscribe(calls.handler("Tower"), aggregate_type="Tower")
    bus.subscribe(topic_pattern="bells.rang", aggregate_type="Tower")(calls.handler("Tower's bells"))
    bus.subscribe(calls.handler("all"))
    for aggregate_type, called in [
        ("Tower", ["Tower", "Tower's bells", "all"]),
        ("Clock", ["all"]),
        ("Tower", ["Tower", "Tower's bells", "all"]),
        (None, ["all"]),
    ]:
        calls.clear()
        await bus.publish(Rang(aggregate_id="one", aggregate_type=aggregate_type))
        assert sorted(calls) == sorted(called)


@pytest.mark.parametrize("pattern", [None, "bells.>"])
async def test_a_handler_of_several_types_is_called_once(
    registry: HandlerRegistry, pattern: str | None
) -> None:
    calls = Calls()
    kinds, topics = (Rang, RangTwice, Rang), None if pattern is None else TopicPattern(pattern)
    registry["several", ""] = HandlerSpec("several", calls.handler("it"), kinds, topics)
    await get_event_bus().publish(RangTwice(), Fell())
    assert calls == ["it"]
    registry.clear()
    await get_event_bus().publish(RangTwice(), Fell())
    assert calls == ["it"]


async def test_handlers_come_and_go_between_events() -> None:
    """Although the bus caches the handlers of an event."""
    bus, calls = EventBus(), Calls()
    first, second = calls.handler("first"), calls.handler("second")
    bus.subscribe(first, Rang)
    bus.subscribe(first, topic_pattern="bells.fell")
    await bus.publish(Rang())
    bus.subscribe(second, topic_pattern="bells.*")
    await bus.publish(Rang())
    assert calls == ["first", "first", "second"]
    calls.clear()
    assert bus.unsubscribe(first)
    assert not bus.unsubscribe(first)
    await bus.publish(Rang(), Fell())
    assert calls == ["second", "second"]
    assert bus.unsubscribe(second)
    await bus.publish(Rang(), Fell())
    assert len(calls) == 2
    assert bus.statistics().subscriptions == 0


async def test_a_subscription_is_not_made_twice_but_another_one_of_the_same_handler_is() -> None:
    bus, calls = EventBus(), Calls()
    handler = calls.handler("it")
    for _ in range(2):
        bus.subscribe(handler, Rang)
    await bus.publish(Rang())
    assert calls == ["it"]
    bus.subscribe(handler, topic_pattern="bells.*")
    await bus.publish(Rang())
    assert len(calls) == 3


class Belfry(EventHandler[Rang]):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.seen: list[int] = []

    async def handle(self, event: Rang, context: HandlerContext) -> None:
        self.seen.append(event.number)


class Tower:
    def __init__(self) -> None:
        self.seen: list[int] = []

    async def ring(self, event: Rang) -> None:
        self.seen.append(event.number)

    def toll(self, event: Rang) -> None:
        self.seen.append(-event.number)


async def test_handlers_are_functions_methods_instances_and_classes() -> None:
    bus, tower, belfry = EventBus(), Tower(), Belfry()
    Belfry.made = 0
    bus.subscribe(tower.ring, Rang)
    bus.subscribe(tower.toll, Rang)
    bus.subscribe(belfry)
    bus.subscribe(Belfry)
    await bus.publish(Rang(number=1), Fell(), Rang(number=2))  # Fell is not for a Belfry
    assert tower.seen == [1, -1, 2, -2]
    assert belfry.seen == [1, 2]
    assert Belfry.made == 1
    assert bus.unsubscribe(tower.toll)  # another bound method than the one subscribed, but the same method
    assert bus.unsubscribe(belfry)
    assert bus.unsubscribe(Belfry)
    await bus.publish(Rang(number=3))
    assert (tower.seen[4:], belfry.seen) == ([3], [1, 2])
    assert bus.dead_letters() == []


async def test_a_handler_of_batches_gets_lists_and_a_projection_works_in_systems_only() -> None:
    registry, calls = HandlerRegistry(), Calls()

    @subscribe(name="batch of bells", batch=3)
    async def batch(events: list[DomainEvent]) -> None:
        calls.append(events)

    class Counts(Projection[Rang]):
        async def handle(self, event: Rang) -> None:
            calls.append("counted")

    for target in (batch, Counts):
        (spec,) = gather([target])
        registry[spec.name, ""] = spec
    bus, event = EventBus(registry=registry), Rang()
    await bus.publish(event)
    assert calls == [[event]]
    with pytest.raises(InvalidHandler, match="give it to an ActorSystem"):
        bus.subscribe(Counts)


async def test_subscribe_is_a_decorator_too() -> None:
    bus, seen = EventBus(), []

    @bus.subscribe(topic_pattern="bells.*", priority=HIGH, name="high")
    async def high(event: Rang, context: HandlerContext) -> None:
        seen.append(context.handler)

    @bus.subscribe
    def every(event: DomainEvent) -> None:
        seen.append("every")

    await bus.publish(Rang())
    assert seen == ["high", "every"]


async def test_a_decorated_handler_brings_its_own_options_and_explicit_ones_win() -> None:
    @subscribe(topic_pattern="bells.rang", priority=LOW, name="mine")
    async def handler(event: Rang | Fell, context: HandlerContext) -> None:
        seen.append((context.handler, event.event_type))

    seen: list[tuple[str, str]] = []
    bus = EventBus()
    bus.subscribe(handler)
    await bus.publish(Rang(), Fell())
    assert seen == [("mine", "Rang")]
    bus.unsubscribe(handler)
    bus.subscribe(handler, topic_pattern="bells.fell", name="other")
    await bus.publish(Rang(), Fell())
    assert seen[1:] == [("other", "Fell")]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"handler": lambda: None}, InvalidHandler, "must take the event"),
        ({"handler": 3}, InvalidHandler, "3 has no name of its own"),
        ({"handler": partial(print)}, InvalidHandler, "subscribe it with name="),
        ({"handler": Rang}, InvalidHandler, "class Rang must be an EventHandler"),
        ({"handler": print, "event_type": int}, InvalidHandler, "event_type must be a DomainEvent class"),
        ({"handler": print, "priority": 7}, InvalidHandler, "priority must be one of HIGH, NORMAL, LOW"),
        ({"handler": print, "topic_pattern": "a..b"}, InvalidTopic, "empty token"),
    ],
)
def test_a_handler_that_cannot_work_is_refused_where_it_is_subscribed(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    bus = EventBus()
    with pytest.raises(error, match=text):
        bus.subscribe(**arguments)
    assert bus.statistics().subscriptions == 0


async def test_only_events_are_published() -> None:
    with pytest.raises(TypeError, match="a bus carries DomainEvents; found 'rang'"):
        await EventBus().publish("rang")  # type: ignore[arg-type]


async def test_an_event_that_matches_three_of_ten_thousand_subscriptions_is_not_slower() -> None:
    """Not even the first event of its kind, for which nothing is cached, checks all of them."""
    bus, calls, found = EventBus(), Calls(), list[int]()
    asked = 0

    class Counting(TopicPattern):
        def matches(self, topic: str) -> bool:
            nonlocal asked
            asked += 1
            return super().matches(topic)

    for number in range(10_000):
        bus.subscribe(calls.handler("other"), topic_pattern=f"orders.{number}.*")
    kinds = [type(f"Bell{number}", (DomainEvent,), {"__module__": __name__}) for number in range(100)]
    for kind in kinds:
        bus.subscribe(calls.handler("other"), kind)
    for pattern in ("bells.*", "bells.rang"):
        bus.subscribe(calls.handler("mine"), topic_pattern=pattern)
    bus.subscribe(calls.handler("mine"), Rang)
    event = Rang()
    looked_at = lines_run_by(lambda: found.append(found_anew(bus, event)))
    assert found == [3]
    assert looked_at < 200, "the route of an event is found by its topic and type, not by asking everybody"
    await bus.publish(event)
    assert calls == ["mine"] * 3


async def test_the_memory_of_topics_is_bounded() -> None:
    bus = EventBus()
    for number in range(5000):
        await bus.publish(Rang(topic=f"bells.{number}"))
    assert 0 < bus.statistics().routes <= 4096


# --- order -------------------------------------------------------------------------------------------------


async def test_a_priority_is_done_before_the_next_one_starts() -> None:
    bus, calls, go_on = EventBus(), Calls(), asyncio.Event()

    @bus.subscribe(priority=HIGH)
    async def slow(event: DomainEvent) -> None:
        calls.append("slow starts")
        await go_on.wait()
        calls.append("slow ends")

    bus.subscribe(calls.handler("low"), priority=LOW)
    bus.subscribe(calls.handler("normal"))
    bus.subscribe(calls.handler("high"), priority=HIGH)
    publishing = asyncio.create_task(bus.publish(Rang()))
    await turns()
    assert calls == ["slow starts", "high"]
    go_on.set()
    await publishing
    assert calls == ["slow starts", "high", "slow ends", "normal", "low"]


async def test_handlers_of_one_priority_run_concurrently() -> None:
    bus, meeting = EventBus(), asyncio.Barrier(3)
    seen = []

    async def meet(number: int, event: DomainEvent) -> None:
        async with asyncio.timeout(patience(30)):
            await meeting.wait()
        seen.append(number)

    for number in range(3):
        bus.subscribe(partial(meet, number), name=f"meet-{number}")
    await bus.publish(Rang())
    await bus.publish(Rang())
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


async def test_plain_functions_block_threads_and_not_the_loop() -> None:
    bus, go_on, where = EventBus(), threading.Event(), []

    def blocks(event: DomainEvent) -> None:
        where.append(threading.get_ident())
        assert go_on.wait(30)

    bus.subscribe(blocks)
    bus.subscribe(partial(blocks), name="another one, at the same time")
    publishing = asyncio.create_task(bus.publish(Rang(), raise_errors=True))
    await until(lambda: len(where) == 2)
    assert not publishing.done()
    go_on.set()
    await publishing
    assert threading.get_ident() not in where


async def test_a_plain_function_that_wraps_a_coroutine_function_is_awaited() -> None:
    bus, calls = EventBus(), Calls()
    inner = calls.handler("inner")

    @bus.subscribe
    def outer(event: DomainEvent) -> Any:
        return inner(event)

    await bus.publish(Rang())
    assert calls == ["inner"]


async def test_a_future_that_a_plain_function_returns_is_awaited_and_its_error_is_the_handlers() -> None:
    bus, failed = EventBus(), Future[None]()
    failed.set_exception(ValueError("refused"))

    def asks(event: DomainEvent) -> Any:
        return failed

    bus.subscribe(asks)
    await bus.publish(Rang())
    assert [letter.error for letter in bus.dead_letters()] == ["ValueError: refused"]


async def test_several_handlers_each_have_their_own_task_and_context() -> None:
    """So that timeouts, cancellation and context variables of one do not affect the others."""
    bus, tasks = EventBus(), []
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    request.set("of the caller")

    async def handle(number: int, event: DomainEvent) -> None:
        assert request.get() == "of the caller"
        request.set(f"of {number}")
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            tasks.append(asyncio.current_task())
        assert request.get() == f"of {number}"

    for number in range(3):
        bus.subscribe(partial(handle, number), name=f"handle-{number}")
    await bus.publish(Rang(), raise_errors=True)
    assert len({id(task) for task in (*tasks, asyncio.current_task())}) == 4
    assert request.get() == "of the caller"


# --- failures ----------------------------------------------------------------------------------------------


class Broken(EventHandler[Rang]):
    def __init__(self) -> None:
        super().__init__()
        raise OSError("no belfry")

    async def handle(self, event: Rang) -> None: ...


async def test_a_failure_does_not_keep_other_handlers_from_running_and_is_kept() -> None:
    bus, calls = EventBus(), Calls()
    bus.subscribe(calls.failing("high", ValueError("cracked")), priority=HIGH, name="high")
    bus.subscribe(calls.failing("first", SystemExit(3)), name="first")
    bus.subscribe(calls.failing("second", asyncio.CancelledError()), name="second")
    bus.subscribe(calls.handler("third"), name="third")

    class Outcome(BaseException):  # as those of pytest are
        pass

    bus.subscribe(calls.failing("outcome", Outcome()), name="outcome")

    def stops(event: DomainEvent) -> None:
        raise StopIteration

    bus.subscribe(stops, name="stops", priority=LOW)
    bus.subscribe(Broken, name="broken", priority=LOW)
    bus.subscribe(calls.handler("low"), priority=LOW)
    event = Rang()
    await bus.publish(event)
    assert calls == ["high", "first", "second", "third", "outcome", "low"]
    letters = bus.dead_letters()
    assert [letter.handler for letter in letters][:4] == ["high", "first", "second", "outcome"]
    assert {letter.handler for letter in letters[4:]} == {"stops", "broken"}
    (high,) = bus.dead_letters("high")
    assert (high.event, high.error) == (event, "ValueError: cracked")
    assert "in handle" in high.traceback
    assert bus.dead_letters("broken")[0].error == "OSError: no belfry"
    statistics = bus.statistics()
    assert (statistics.published, statistics.handled, statistics.failed) == (1, 2, 6)


async def test_errors_are_raised_at_the_end_on_request() -> None:
    bus, calls = EventBus(), Calls()
    bus.subscribe(calls.failing("a", ValueError("one")), Rang)
    bus.subscribe(calls.failing("b", KeyError("two")), Rang, priority=LOW)
    bus.subscribe(calls.handler("c"), priority=LOW)
    with pytest.raises(ExceptionGroup) as raised:
        await bus.publish(Rang(), Fell(), raise_errors=True)
    assert list(map(repr, raised.value.exceptions)) == ["ValueError('one')", "KeyError('two')"]
    assert calls == ["a", "b", "c", "c"]  # the events after it too were published
    await bus.publish(Fell(), raise_errors=True)


async def test_dead_letters_are_logged_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    bus, calls = EventBus("carillon"), Calls()
    bus.subscribe(calls.failing("a", ValueError("cracked")), Rang, name="ringer")
    for number in range(1005):
        await bus.publish(Rang(number=number))
    assert len(bus.dead_letters()) == 1000
    assert bus.dead_letters()[-1].event == Rang.model_validate(bus.dead_letters()[-1].event.model_dump())
    assert bus.statistics().failed == 1005
    assert len(caplog.records) == 1005
    assert "handler failed" in caplog.text
    assert "bus=carillon handler=ringer event_type=Rang" in caplog.text
    assert "ValueError: cracked" in caplog.text


@pytest.mark.parametrize("handlers", [1, 2])
async def test_a_cancelled_publisher_cancels_the_handlers_and_loses_nothing_silently(handlers: int) -> None:
    bus, calls, ended = EventBus(), Calls(), []

    async def waits(number: int, event: DomainEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    for number in range(handlers):
        bus.subscribe(partial(waits, number), name=f"waits-{number}")
    bus.subscribe(calls.handler("low"), priority=LOW, name="low")
    publishing = asyncio.create_task(bus.publish(Rang(), Rang()))
    await turns()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert sorted(ended) == list(range(handlers))  # they were waited for
    assert calls == []
    names = sorted(letter.handler for letter in bus.dead_letters())
    assert names == ["low", *(f"waits-{number}" for number in range(handlers))]
    assert bus.statistics().published == 1


async def test_endless_publishing_ends_as_a_failure() -> None:
    """Handlers that publish the event they handle: Python's recursion limit ends that, and the bus still works."""
    bus = EventBus()
    calls = 0

    async def again(event: Rang) -> None:
        nonlocal calls
        calls += 1
        await bus.publish(Rang())

    bus.subscribe(again, Rang)
    bus.subscribe(lambda event: None, Fell)
    await bus.publish(Rang())
    assert calls > 50
    assert "RecursionError" in bus.dead_letters()[0].error
    assert asyncio.current_task() is not None
    await bus.publish(Fell(), raise_errors=True)


async def test_deep_publishing_with_several_handlers_leaves_the_loop_in_order() -> None:
    bus, calls = EventBus(), Calls()
    deepest = 40

    async def again(event: Rang) -> None:
        if event.number < deepest:
            await bus.publish(Rang(number=event.number + 1))

    bus.subscribe(again, Rang)
    bus.subscribe(calls.handler("beside"), Rang)
    me = asyncio.current_task()
    await bus.publish(Rang(), raise_errors=True)
    assert len(calls) == deepest + 1
    assert asyncio.current_task() is me
    await asyncio.sleep(0)


# --- a model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Modelled:
    """The events that a handler wants, and how it behaves."""

    number: int
    priority: EventPriority
    event_type: type[DomainEvent] | None
    pattern: str | None
    is_async: bool
    steps: int  # turns of the loop that it waits
    fails: bool

    def wants(self, event: DomainEvent) -> bool:
        if self.event_type is not None and not isinstance(event, self.event_type):
            return False
        return self.pattern is None or TopicPattern(self.pattern).matches(event.topic or "")


modelled = st.lists(
    st.builds(
        Modelled,
        st.just(0),
        st.sampled_from(EventPriority),
        st.sampled_from([None, Rang, RangTwice, Fell, DomainEvent]),
        st.sampled_from([None, "bells.*", "bells.>", "*.fell"]),
        st.booleans(),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=8,
).map(lambda handlers: [Modelled(n, *list(h.__dict__.values())[1:]) for n, h in enumerate(handlers)])
modelled_events = st.lists(st.sampled_from([Rang, RangTwice, Fell]).map(lambda kind: kind()), max_size=5)


Log = list[tuple[str, str, Modelled]]


def modelled_handler(handler: Modelled, log: Log) -> Callable[..., Any]:
    def end(event: DomainEvent) -> None:
        log.append(("end", event.event_id, handler))
        if handler.fails:
            raise ValueError(handler.number)

    async def handle(event: DomainEvent) -> None:
        log.append(("start", event.event_id, handler))
        for _ in range(handler.steps):
            await asyncio.sleep(0)
        end(event)

    def plain(event: DomainEvent) -> None:
        log.append(("start", event.event_id, handler))
        end(event)

    return handle if handler.is_async else plain


@given(modelled, modelled_events, st.sets(st.integers(0, 7)))
@settings(max_examples=100, deadline=None)
def test_every_matching_handler_runs_once_in_order_of_priority_whatever_the_others_do(
    handlers: list[Modelled], events: list[DomainEvent], unsubscribed: set[int]
) -> None:
    log: Log = []

    async def run() -> EventBus:
        bus = EventBus()
        targets = [modelled_handler(handler, log) for handler in handlers]
        for handler, target in zip(handlers, targets, strict=True):
            name = str(handler.number)
            bus.subscribe(target, handler.event_type, handler.pattern, handler.priority, name=name)
        for number in unsubscribed & set(range(len(targets))):
            assert bus.unsubscribe(targets[number])
        for event in events:
            await bus.publish(event)
        return bus

    bus = asyncio.run(run())
    failures: list[tuple[str, str]] = []
    for event in events:
        mine = [(what, handler) for what, event_id, handler in log if event_id == event.event_id]
        wanted = [h for h in handlers if h.wants(event) and h.number not in unsubscribed]
        for what in ("start", "end"):
            assert sorted(h.number for w, h in mine if w == what) == [h.number for h in wanted]
        priorities = [handler.priority for _, handler in mine]
        assert priorities == sorted(priorities)
        started = [(h.priority, h.number) for what, h in mine if what == "start" and h.is_async]
        assert started == sorted(started)
        failures += [(event.event_id, str(h.number)) for h in wanted if h.fails]
    assert sorted((letter.event.event_id, letter.handler) for letter in bus.dead_letters()) == sorted(
        failures
    )
    order = [event.event_id for event in events]
    places = [order.index(event_id) for _, event_id, _ in log]
    assert places == sorted(places)


# --- causes and contexts -----------------------------------------------------------------------------------


async def test_an_event_published_in_a_handler_names_the_handled_event_as_its_cause() -> None:
    bus, fell = EventBus(), []

    @bus.subscribe(event_type=Rang)
    async def falls(event: Rang) -> None:
        await bus.publish(Fell(), Fell(correlation_id="mine", causation_id="own"))
        await bus.publish(event.stamped(topic=None))  # the event itself is not its own cause

    @bus.subscribe
    def look(event: DomainEvent) -> None:
        fell.append((event.event_type, event.correlation_id, event.causation_id, current_cause()))

    event = Rang(topic=None, correlation_id="all")
    bus.unsubscribe(falls)
    bus.subscribe(falls, topic_pattern="bells.rang")
    await bus.publish(event, raise_errors=True)
    assert fell[0][:3] == ("Rang", "all", None)
    fell.clear()
    event = Rang(correlation_id="all")
    await bus.publish(event, raise_errors=True)
    by_type = sorted(fell, key=lambda seen: (seen[0], str(seen[1])))
    assert [seen[:3] for seen in by_type] == [
        ("Fell", "all", event.event_id),
        ("Fell", "mine", "own"),
        ("Rang", "all", None),
        ("Rang", "all", None),
    ]
    assert {seen[3].causation_id for seen in fell if seen[0] == "Rang"} == {event.event_id}
    assert current_cause() is None


async def test_a_context_on_a_bus_of_no_system_says_so() -> None:
    bus, contexts = EventBus(), []

    @bus.subscribe(name="it")
    async def handle(event: Rang, context: HandlerContext) -> None:
        contexts.append((context.position, context.attempt, context.handler))
        context.logger.info("rang")
        context.system.actor("nobody")

    await bus.publish(Rang())
    assert contexts == [(0, 1, "it")]
    (letter,) = bus.dead_letters()
    assert "context.system.actor on a bus of no system: subscribe the handler to the bus" in letter.error


class Ring(Command[int]):
    pass


class Carillon(AggregateRoot):
    rung = 0

    @handles
    def ring(self, command: Ring) -> int:
        self.register_event(Rang(number=self.rung + 1))
        return self.rung

    def apply_rang(self, event: Rang) -> None:
        self.rung += 1


async def test_the_bus_of_a_system_is_for_events_that_are_not_recorded() -> None:
    recorded = []

    @subscribe(event_type=DomainEvent)
    async def durable(event: DomainEvent) -> None:
        recorded.append(event.event_type)

    async with ActorSystem("memory:", handlers=[durable], aggregates=[Carillon]) as system:
        where = []

        @system.bus.subscribe(event_type=Fell)
        async def rings(event: Fell, context: HandlerContext) -> None:
            await context.system.aggregate(Carillon, "c").ask(Ring())

        @system.bus.subscribe(event_type=Fell)
        def blocks(event: Fell, context: HandlerContext) -> None:
            context.system.aggregate(Carillon, "c").ask(Ring()).get(timeout=30)
            where.append(threading.current_thread().name)

        fell = Fell()
        await system.bus.publish(fell, raise_errors=True)
        await system.settled()
        events = await system.store.get_events("c")
        assert [event.number for event in events] == [1, 2]
        assert {event.correlation_id for event in events} == {fell.event_id}
        assert recorded == ["Rang", "Rang"]  # and no Fell
        assert "uno-worker" in where[0]


async def test_the_bus_of_a_synchronous_system_runs_on_its_loop() -> None:
    def program() -> list[str]:
        with ActorSystem("memory:", handlers=[]) as system:
            calls = Calls()
            for name in "ab":
                system.bus.subscribe(calls.handler(name), name=name)
            system.run(system.bus.publish(Rang(), raise_errors=True))
            return calls

    assert await asyncio.to_thread(program) == ["a", "b"]


# --- publishers --------------------------------------------------------------------------------------------


async def test_the_publisher_of_a_system_records_and_the_router_delivers() -> None:
    seen = []

    @subscribe(event_type=Rang)
    async def falls(event: Rang, context: HandlerContext) -> None:
        await context.system.publisher.publish(Fell())

    @subscribe(event_type=Fell, priority=LOW)
    async def look(event: Fell) -> None:
        seen.append((event.causation_id, event.correlation_id))

    system = ActorSystem("memory:", handlers=[falls, look])
    with pytest.raises(SystemNotRunning):
        _ = system.publisher
    async with system:
        ((position, rang),) = await system.publisher.publish(Rang())
        await system.settled()
        assert position == 1
        assert seen == [(rang.event_id, rang.event_id)]
        assert [event.event_type async for _, event in system.store.read_all()] == ["Rang", "Fell"]


async def test_the_default_publisher_records_before_it_delivers() -> None:
    seen = []

    @subscribe(event_type=Rang)
    async def look(event: Rang, context: HandlerContext) -> None:
        seen.append((event.number, context.position, await get_event_store().last_position()))

    recorded = await get_event_publisher().publish(Rang(number=1), Rang(number=2))
    assert [position for position, _ in recorded] == [1, 2]
    assert seen == [(1, 1, 2), (2, 2, 2)]
    await get_event_bus().publish(Rang(number=3))
    assert seen[2] == (3, 0, 2)  # not recorded


async def test_an_event_that_cannot_be_recorded_is_not_delivered() -> None:
    bus, calls = EventBus(), Calls()
    bus.subscribe(calls.handler("it"))
    store = open_store("memory:")
    await store.close()
    with pytest.raises(StoreUnavailable):
        await EventPublisher(store, bus).publish(Rang())
    assert calls == []


# --- defaults ----------------------------------------------------------------------------------------------


async def test_the_default_bus_serves_handlers_subscribed_before_and_after_it_was_made() -> None:
    calls = Calls()

    @subscribe(event_type=Rang)
    async def early(event: Rang) -> None:
        calls.append("early")

    bus = get_event_bus()
    await bus.publish(Rang())

    @subscribe(topic_pattern="bells.*")
    async def late(event: Rang) -> None:
        calls.append("late")

    subscribe(event_type=Fell)(Belfry)  # as a class: instantiated when the first event comes
    await bus.publish(Rang())
    assert calls == ["early", "early", "late"]
    bus.subscribe(late)  # is there already
    assert bus.unsubscribe(early)
    await bus.publish(Rang())
    assert calls == ["early", "early", "late", "late"]
    assert get_event_bus() is bus


async def test_a_handler_that_is_defined_again_replaces_itself_on_the_default_bus() -> None:
    calls = Calls()

    def define(text: str) -> None:
        @subscribe(event_type=Rang, name="again")
        async def handler(event: Rang) -> None:
            calls.append(text)

    define("old")
    await get_event_bus().publish(Rang())
    define("new")
    await get_event_bus().publish(Rang())
    handler_registry.clear()
    await get_event_bus().publish(Rang())
    assert calls == ["old", "new"]


async def test_other_buses_do_not_serve_the_registry() -> None:
    calls = Calls()
    subscribe(event_type=Rang, name="it")(calls.handler("it"))
    await EventBus().publish(Rang())
    async with ActorSystem("memory:", handlers=[]) as system:
        await system.bus.publish(Rang())
    assert calls == []


async def test_a_registered_handler_that_cannot_work_is_named() -> None:
    class NeedsMore(EventHandler[Any]):
        def __init__(self, more: int) -> None:
            super().__init__()

    subscribe(name="needs more")(NeedsMore)
    for _ in range(2):
        with pytest.raises(InvalidHandler, match="NeedsMore cannot be made without arguments"):
            await get_event_bus().publish(Rang())


def test_defaults_are_replaced_inside_a_block() -> None:
    bus, store = EventBus(), open_store("memory:")
    before = get_event_bus(), get_event_store()
    with event_defaults(store, bus):
        assert (get_event_bus(), get_event_store()) == (bus, store)
    with event_defaults():
        assert get_event_bus() not in (before[0], bus)
        assert get_event_store() is get_event_store()
    assert (get_event_bus(), get_event_store()) == before


def test_a_bus_works_on_one_event_loop_after_another() -> None:
    bus, calls = EventBus(), Calls()

    async def waits(event: DomainEvent) -> None:
        await asyncio.sleep(0)
        calls.append("waits")

    bus.subscribe(waits)
    bus.subscribe(calls.handler("does not"))
    for _ in range(2):
        asyncio.run(bus.publish(Rang(), raise_errors=True))
    assert calls == ["does not", "waits"] * 2


def test_a_bus_leaves_behind_no_task_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Neither when it is collected while its loop runs, nor when the loop is closed by hand."""

    async def publish() -> None:
        bus, calls = EventBus(), Calls()
        for name in "ab":
            bus.subscribe(calls.handler(name), name=name)
        await bus.publish(Rang(), raise_errors=True)

    async def publish_and_go_on() -> None:
        await publish()
        await turns()
        gc.collect()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(publish_and_go_on())
    loop.run_until_complete(publish())
    loop.close()
    del loop
    gc.collect()
    assert caplog.text == ""
