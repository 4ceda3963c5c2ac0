"""Context variables that are bound where a message is sent are bound where it is handled, and nowhere else."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

import pykka
import pytest
import structlog

from tests.bank import BankStore
from tests.cluster.nodes import id_of, nodes_on
from tests.waiting import turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    DomainEvent,
    EventBus,
    EventPriority,
    Projection,
    StoreUnavailable,
    Supervisor,
    event_registry,
    handles,
)
from uno_actors.actors.ask import being_handled, context_of_sender
from uno_actors.causality import Cause, caused_by, current_cause
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.event_contexts import KEPT, EventContexts
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.testing import inspect

REQUEST: ContextVar[str] = ContextVar("request", default="none")


def bound() -> tuple[str, object]:
    return REQUEST.get(), structlog.contextvars.get_contextvars().get("customer")


@contextmanager
def request(name: str) -> Iterator[None]:
    """Bind ``name`` as a program binds what it works on: a variable, and values for its logs."""
    token = REQUEST.set(name)
    try:
        with structlog.contextvars.bound_contextvars(customer=name):
            yield
    finally:
        REQUEST.reset(token)


class Look(Command[tuple[str, object]]):
    note: bool = False


class Seen(DomainEvent):
    by: str


class Watcher(AggregateRoot):
    @handles
    def look(self, command: Look) -> tuple[str, object]:
        if command.note:
            self.register_event(Seen(by=REQUEST.get()))
        return bound()

    def apply_seen(self, event: Seen) -> None: ...


# --- aggregates ---


async def test_what_is_bound_at_the_ask_is_bound_in_the_aggregate() -> None:
    async with ActorSystem(aggregates=[Watcher], handlers=[]) as system:
        watcher = system.aggregate(Watcher, "one")
        with request("a"):
            first = watcher.ask(Look())
        with request("b"):
            second = watcher.ask(Look(note=True))
        third = watcher.ask(Look())
        assert [await first, await second, await third] == [("a", "a"), ("b", "b"), ("none", None)]


def test_what_a_thread_binds_is_bound_in_the_aggregate() -> None:
    with ActorSystem(aggregates=[Watcher], handlers=[]) as system, request("thread"):
        assert system.aggregate(Watcher, "one").ask(Look()).get(timeout=5) == ("thread", "thread")


class WatchedStore(BankStore):
    def __init__(self) -> None:
        super().__init__()
        self.event_registry = event_registry


async def test_command_that_is_decided_again_keeps_its_context() -> None:
    store = WatchedStore()
    async with ActorSystem(store, aggregates=[Watcher], handlers=[]) as system:
        watcher = system.aggregate(Watcher, "one")
        await watcher.ask(Look())
        store.gate.clear()
        store.commit_errors.append(StoreUnavailable("test", "it is away"))
        first = watcher.ask(Look(note=True))
        await until(lambda: store.commits_asked)
        with request("b"):
            second = watcher.ask(Look(note=True))  # decided on a state that is not recorded
        await turns()
        store.gate.set()
        with pytest.raises(StoreUnavailable):
            await first
        assert await second == ("b", "b")
        assert system.statistics().reruns == 1


async def test_what_the_aggregate_binds_is_not_bound_in_its_sender_or_the_next_command() -> None:
    class Bind(Command[None]):
        pass

    class Binder(AggregateRoot):
        @handles
        def bind(self, command: Bind) -> None:
            REQUEST.set("left behind")

        @handles
        def look(self, command: Look) -> tuple[str, object]:
            return bound()

    async with ActorSystem(aggregates=[Binder], handlers=[]) as system:
        binder = system.aggregate(Binder, "one")
        with request("a"):
            await binder.ask(Bind())
            assert bound() == ("a", "a")
            assert await binder.ask(Look()) == ("a", "a")
        await binder.ask(Bind())
        assert await binder.ask(Look()) == ("none", None)


# --- actors ---


class OnLoop(Actor):
    async def on_receive(self, message: Any) -> tuple[str, object]:
        before = bound()
        await asyncio.sleep(0)
        assert bound() == before
        task = asyncio.create_task(self.later())
        assert await task == before
        return before

    async def later(self) -> tuple[str, object]:
        return bound()


class OnLoopAtOnce(Actor):
    async def on_receive(self, message: Any) -> tuple[str, object]:
        return bound()


class OnWorker(Actor):
    def on_receive(self, message: Any) -> tuple[str, object]:
        return bound()


class WithProxy(Actor):
    async def look(self) -> tuple[str, object]:
        await asyncio.sleep(0)
        return bound()

    def look_plainly(self) -> tuple[str, object]:
        return bound()


class Thread(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> tuple[str, object]:
        return bound()


@pytest.mark.parametrize("kind", [OnLoop, OnLoopAtOnce, OnWorker])
async def test_what_is_bound_at_the_ask_is_bound_in_the_actor(kind: type[Actor]) -> None:
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(kind)
        with request("a"):
            first = ref.ask("look")
        with request("b"):
            second = ref.ask("look")
        third = ref.ask("look")
        assert [await first, await second, await third] == [("a", "a"), ("b", "b"), ("none", None)]


@pytest.mark.parametrize("kind", [OnWorker, Thread])
async def test_it_is_bound_in_an_actor_with_a_thread_of_its_own(kind: Any) -> None:
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(kind, dispatcher="thread")
        with request("a"):
            first = ref.ask("look")
        assert [await first, await ref.ask("look")] == [("a", "a"), ("none", None)]


@pytest.mark.parametrize("method", ["look", "look_plainly"])
async def test_it_is_bound_in_a_call_through_a_proxy(method: str) -> None:
    async with ActorSystem(handlers=[]) as system:
        proxy = (await system.spawn(WithProxy)).proxy()
        with request("a"):
            found = getattr(proxy, method)()
        assert await found == ("a", "a")


async def test_actor_does_not_see_what_another_message_is_caused_by() -> None:
    causes = []

    class Caused(Actor):
        async def on_receive(self, message: Any) -> None:
            causes.append(current_cause())

    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Caused)
        with caused_by(Cause("chain", "message")):
            await ref.ask("plain")
            with request("a"):
                await ref.ask("with a context")
    assert causes == [None, None]


async def test_timer_s_message_has_the_context_in_which_the_timer_was_started() -> None:
    seen = asyncio.Queue[tuple[str, object]]()

    class Clockwork(Actor):
        async def on_receive(self, message: str) -> None:
            if message == "wind":
                self.timers.once(0.001, "tick")
            else:
                seen.put_nowait(bound())

    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Clockwork)
        with request("a"):
            ref.tell("wind")
        assert await seen.get() == ("a", "a")


def test_the_runtime_s_own_variables_are_no_context() -> None:
    Context().run(_check_own_variables)  # whatever other tests have bound


def _check_own_variables() -> None:
    assert context_of_sender() is None
    with caused_by(Cause("chain", "message")):
        assert context_of_sender() is None
        with request("a"):
            context = context_of_sender()
    assert context is not None
    assert context.run(current_cause) is None
    assert context.run(bound) == ("a", "a")
    assert context.run(being_handled.get) is None


# --- handlers ---


class Heard:
    """What handlers have seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def note(self) -> None:
        self.seen.append(bound())


def functions_noting(heard: Heard) -> dict[str, Any]:
    def plain(event: DomainEvent) -> None:
        heard.note()

    async def quick(event: DomainEvent) -> None:
        heard.note()

    async def waiting(event: DomainEvent) -> None:
        await asyncio.sleep(0)
        heard.note()
        await asyncio.sleep(0)

    async def in_a_task(event: DomainEvent) -> None:
        async def note() -> None:
            heard.note()

        await asyncio.create_task(note())

    def returns_a_coroutine(event: DomainEvent) -> Awaitable[None]:
        return quick(event)

    async def batch(events: list[DomainEvent]) -> None:
        for _ in events:
            heard.note()

    return {
        "plain": plain,
        "quick": quick,
        "waiting": waiting,
        "in a task": in_a_task,
        "returns a coroutine": returns_a_coroutine,
        "batch": batch,
    }


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "with a time limit": ("waiting", {"timeout": 5}),
    "plain with a time limit": ("plain", {"timeout": 5}),
    "concurrent": ("waiting", {"concurrency": 4}),
    "batch": ("batch", {"batch": 1}),
}


def handler_of(kind: str, heard: Heard, **options: Any) -> HandlerSpec:
    function, more = OPTIONS.get(kind, (kind, {}))
    return HandlerSpec(kind, functions_noting(heard)[function], event_type=Seen, **more, **options)


async def test_it_is_bound_in_projections() -> None:
    heard = Heard()

    class Notes(Projection[Seen]):
        async def handle(self, event: Seen) -> None:
            heard.note()

    async with ActorSystem(aggregates=[Watcher], handlers=[Notes]) as system:
        await system.aggregate(Watcher, "one").ask(Look(note=True))
        await system.settled()
        with request("a"):
            await system.aggregate(Watcher, "one").ask(Look(note=True))
        await system.settled()
    assert heard.seen == [("none", None), ("a", "a")]


KINDS = [
    "plain",
    "quick",
    "waiting",
    "in a task",
    "returns a coroutine",
    "with a time limit",
    "plain with a time limit",
    "concurrent",
    "batch",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_bound_at_the_ask_is_bound_in_the_handlers_of_its_events(kind: str) -> None:
    heard = Heard()
    async with ActorSystem(aggregates=[Watcher], handlers=[handler_of(kind, heard)]) as system:
        for name in ("a", "b"):
            with request(name):
                await system.aggregate(Watcher, name).ask(Look(note=True))
            await system.settled()
        await system.aggregate(Watcher, "none").ask(Look(note=True))
        await system.settled()
    assert heard.seen == [("a", "a"), ("b", "b"), ("none", None)]


async def test_what_is_bound_at_publish_is_bound_in_the_handlers_of_its_events() -> None:
    heard = Heard()
    async with ActorSystem(handlers=[handler_of("quick", heard)]) as system:
        with request("a"):
            await system.publisher.publish(Seen(by="me"), Seen(by="you"))
        await system.publisher.publish(Seen(by="them"))
        await system.settled()
    assert heard.seen == [("a", "a"), ("a", "a"), ("none", None)]


async def test_handlers_of_one_event_do_not_see_what_others_bind() -> None:
    seen = []

    def binds(name: str, priority: EventPriority) -> HandlerSpec:
        async def handler(event: Seen) -> None:
            seen.append(bound()[0])
            REQUEST.set(name)

        return HandlerSpec(name, handler, event_type=Seen, priority=priority)

    handlers = [binds("first", EventPriority.HIGH), binds("second", EventPriority.LOW)]
    async with ActorSystem(aggregates=[Watcher], handlers=handlers) as system:
        with request("a"):
            await system.aggregate(Watcher, "one").ask(Look(note=True))
        await system.settled()
    assert seen == ["a", "a"]


@pytest.mark.parametrize("kind", ["plain", "async", "concurrent"])
async def test_further_attempts_have_the_context_of_the_first(kind: str) -> None:
    seen: list[tuple[str, object]] = []

    def fail_once(event: DomainEvent) -> None:
        seen.append(bound())
        if len(seen) < 3:
            raise ValueError("not yet")

    async def fail_once_async(event: DomainEvent) -> None:
        fail_once(event)

    spec = HandlerSpec(
        "fails",
        fail_once if kind == "plain" else fail_once_async,
        event_type=Seen,
        concurrency=2 if kind == "concurrent" else 1,
    )
    supervisor = Supervisor("quick", [spec], backoff=Backoff(initial=0, max=0), max_restarts=None)
    async with ActorSystem(aggregates=[Watcher], handlers=[], supervisors=[supervisor]) as system:
        with request("a"):
            await system.aggregate(Watcher, "one").ask(Look(note=True))
        await until(lambda: len(seen) == 3)
    assert seen == [("a", "a")] * 3


async def test_handler_that_catches_up_has_no_context() -> None:
    heard = Heard()
    spec = handler_of("quick", heard, start="earliest")
    async with ActorSystem("memory:", aggregates=[Watcher], handlers=[]) as system:
        with request("a"):
            await system.aggregate(Watcher, "one").ask(Look(note=True))
        store = system.store
        async with ActorSystem(store, handlers=[spec]) as late:
            with request("b"):
                await late.settled()
    assert heard.seen == [("none", None)]


async def test_sender_s_context_is_kept_only_until_its_events_are_routed() -> None:
    heard = Heard()
    async with ActorSystem(aggregates=[Watcher], handlers=[handler_of("quick", heard)]) as system:
        with request("a"):
            for number in range(10):
                await system.aggregate(Watcher, f"{number}").ask(Look(note=True))
        await system.settled()
        assert inspect(system).contexts == 0
    async with ActorSystem(aggregates=[Watcher], handlers=[]) as system:
        with request("a"):
            await system.aggregate(Watcher, "one").ask(Look(note=True))
        assert inspect(system).contexts == 0  # without handlers nothing would take it


def test_contexts_of_events_that_are_never_routed_are_bounded() -> None:
    contexts = EventContexts()
    contexts.is_wanted = True
    with request("a"):
        context = context_of_sender()
    assert context is not None
    for number in range(KEPT + 10):
        contexts.keep(str(number), context)
    assert len(contexts) == KEPT
    assert contexts.take("9") is None
    assert contexts.take("10") is context
    assert contexts.take("10") is None


# --- the bus ---


@pytest.mark.parametrize("of_system", [True, False])
@pytest.mark.parametrize("kind", ["plain", "quick", "waiting", "in a task", "returns a coroutine"])
async def test_what_is_bound_at_publish_is_bound_in_the_handlers_of_the_bus(
    kind: str, of_system: bool
) -> None:
    heard = Heard()
    async with ActorSystem(handlers=[]) as system:
        bus = system.bus if of_system else EventBus()
        bus.subscribe(functions_noting(heard)[kind], Seen)
        with request("a"):
            await bus.publish(Seen(by="me"))
        await bus.publish(Seen(by="me"))
    assert heard.seen == [("a", "a"), ("none", None)]


# --- between nodes ---


async def test_context_does_not_cross_a_hop() -> None:
    async with nodes_on(WatchedStore(), MemoryNetwork(), "ab", aggregates=[Watcher]) as systems:
        first, second = systems
        owners = {f"{n}": first.cluster.owner(Watcher, f"{n}") for n in range(100)}
        theirs = next(name for name, owner in owners.items() if owner and owner.id == id_of(second))
        with request("a"):
            assert await first.aggregate(Watcher, theirs).ask(Look()) == ("none", None)
            assert await second.aggregate(Watcher, theirs).ask(Look()) == ("a", "a")
