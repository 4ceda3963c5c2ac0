"""What handlers depend on: parts of the system, and resources open for the handler, for a call or for the system."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest

from tests.bank import BankStore, Credited
from tests.faults import lease_is_lost, lease_is_taken_again
from tests.test_balance import held
from tests.waiting import ManualClock, until
from uno_actors import (
    ActorSystem,
    Backoff,
    Depends,
    EventBus,
    EventHandler,
    EventStore,
    HandlerContext,
    InvalidHandler,
    Projection,
    Supervisor,
    SupervisorGaveUp,
    SystemServices,
    subscribe,
)
from uno_actors.clock import Clock
from uno_actors.config.reader import load
from uno_actors.handlers.spec import HandlerSpec
from uno_stores import InMemoryEventStore, LmdbEventStore

AT_ONCE = Backoff(initial=0, max=0)


class Log:
    """What was opened, closed and handled, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.opened = 0
        self.broken = 0  # so many attempts at opening fail

    def open(self, name: str) -> str:
        self.opened += 1
        if self.opened <= self.broken:
            self.lines.append(f"{name} fails")
            raise ConnectionError(f"{name} is away")
        self.lines.append(f"open {name} {self.opened}")
        return f"{name} {self.opened}"

    def close(self, name: str) -> None:
        self.lines.append(f"close {name}")


@pytest.fixture
def log() -> Log:
    return Log()


def resource(log: Log, name: str = "mail", kind: str = "async") -> Callable[[], Any]:
    """A function that opens a resource, of one kind."""

    async def opens() -> AsyncIterator[str]:
        opened = log.open(name)
        try:
            yield opened
        finally:
            await asyncio.sleep(0)
            log.close(opened)

    def opens_plainly() -> Iterator[str]:
        opened = log.open(name)
        try:
            yield opened
        finally:
            log.close(opened)

    class AsyncManager:
        async def __aenter__(self) -> str:
            self.opened = log.open(name)
            return self.opened

        async def __aexit__(self, *error: object) -> None:
            log.close(self.opened)

    class Manager:
        def __enter__(self) -> str:
            self.opened = log.open(name)
            return self.opened

        def __exit__(self, *error: object) -> None:
            log.close(self.opened)

    kinds: dict[str, Callable[[], Any]] = {
        "async": opens,
        "plain": opens_plainly,
        "async decorated": asynccontextmanager(opens),
        "decorated": contextmanager(opens_plainly),
        "async class": AsyncManager,
        "class": Manager,
        "partial": partial(opens),
    }
    return kinds[kind]


def handling(log: Log, function: Callable[[], Any], scope: Any = "handler", **options: Any) -> HandlerSpec:
    """A handler that depends on a resource."""

    async def handle(event: Credited, mail: Annotated[str, Depends(function, scope)]) -> None:
        log.lines.append(f"{event.amount} with {mail}")

    return HandlerSpec(options.pop("name", "handler"), handle, start="earliest", **options)


def serving(*specs: Any, store: Any = "memory:", budget: int | None = None, **options: Any) -> ActorSystem:
    supervisor = Supervisor("quick", specs, max_restarts=budget, backoff=AT_ONCE)
    return ActorSystem(store, aggregates=[], handlers=[], supervisors=[supervisor], **options)


async def publish(system: ActorSystem, *amounts: int) -> None:
    await system.publisher.publish(*(Credited(amount=amount) for amount in amounts))


# --- a life as long as the handler ---


@pytest.mark.parametrize(
    "kind", ["async", "plain", "async decorated", "decorated", "async class", "class", "partial"]
)
async def test_a_resource_is_opened_once_and_closed_when_the_system_stops(log: Log, kind: str) -> None:
    async with serving(handling(log, resource(log, kind=kind))) as system:
        await publish(system, 1, 2)
        await system.settled()
        assert log.lines == ["open mail 1", "1 with mail 1", "2 with mail 1"]
    assert log.lines[3:] == ["close mail 1"]


async def test_plain_functions_and_handlers_run_on_worker_threads() -> None:
    threads: list[threading.Thread] = []

    def connection() -> Iterator[str]:
        threads.append(threading.current_thread())
        yield "connection"
        threads.append(threading.current_thread())

    def handle(event: Credited, mail: Annotated[str, Depends(connection)]) -> None:
        assert mail == "connection"
        threads.append(threading.current_thread())

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def test_what_a_plain_function_returns_is_passed_and_not_entered() -> None:
    lock = threading.Lock()  # entering it would take it

    def given() -> threading.Lock:
        return lock

    seen: list[bool] = []

    async def handle(event: Credited, found: Annotated[Any, Depends(given)]) -> None:
        seen.append(found is lock and not lock.locked())

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert seen == [True]


async def test_a_context_manager_of_contextlib_that_a_function_returns_is_entered() -> None:
    kept: list[sqlite3.Connection] = []

    def books() -> Any:
        return closing(sqlite3.connect(":memory:", check_same_thread=False))

    def handle(event: Credited, database: Annotated[sqlite3.Connection, Depends(books)]) -> None:
        kept.append(database)
        assert database.execute("SELECT 1").fetchone() == (1,)

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept[0].execute("SELECT 1")


async def test_resources_that_depend_on_others_are_closed_in_reverse_order(log: Log) -> None:
    pool = resource(log, "pool")

    async def session(pool: Annotated[str, Depends(pool)]) -> AsyncIterator[str]:
        yield log.open(f"session of {pool}")
        log.close("session")

    async def handle(
        event: Credited,
        mail: Annotated[str, Depends(session)],
        context: HandlerContext,
        again: Annotated[str, Depends(pool)],
    ) -> None:
        log.lines.append(f"{context.position} {mail}, {again}")

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == [
        "open pool 1",
        "open session of pool 1 2",
        "1 session of pool 1 2, pool 1",
        "close session",
        "close pool 1",
    ]


async def test_after_a_failure_a_resource_is_closed_and_opened_anew_and_the_event_comes_again(
    log: Log,
) -> None:
    mailer = resource(log)

    async def handle(event: Credited, mail: Annotated[str, Depends(mailer)], context: HandlerContext) -> None:
        log.lines.append(f"attempt {context.attempt} with {mail}")
        if context.attempt == 1:
            raise ConnectionError(mail)

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == [
        "open mail 1",
        "attempt 1 with mail 1",
        "close mail 1",
        "open mail 2",
        "attempt 2 with mail 2",
        "close mail 2",
    ]


async def test_a_failure_to_open_is_one_of_the_handler_and_sets_no_event_aside(log: Log) -> None:
    log.broken = 7  # more than the attempts at an event
    async with serving(handling(log, resource(log), max_attempts=2)) as system:
        await publish(system, 1)
        await system.settled()
        assert system.statistics().handlers["handler"].restarts == 7
        assert not await system.store.dead_letters()
    assert log.lines == [*["mail fails"] * 7, "open mail 8", "1 with mail 8", "close mail 8"]


async def test_what_had_been_opened_is_closed_when_another_does_not_open(log: Log) -> None:
    async def second(first: Annotated[str, Depends(resource(log, "first"))]) -> AsyncIterator[str]:
        if log.opened == 1:
            raise ConnectionError("second")
        yield "second"

    async with serving(handling(log, second)) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["open first 1", "close first 1", "open first 2", "1 with second", "close first 2"]


async def test_a_supervisor_gives_up_a_handler_whose_resource_never_opens(log: Log) -> None:
    log.broken = 1000
    system = serving(handling(log, resource(log)), budget=3)
    await system.start()
    with pytest.raises(SupervisorGaveUp, match="mail is away"):
        await system.wait_stopped()
    assert log.lines == ["mail fails"] * 4


async def test_a_resource_that_never_opens_holds_up_neither_the_start_nor_the_stop_nor_other_handlers(
    log: Log,
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    slow = handling(log, hangs, name="slow")
    other = HandlerSpec("other", lambda event: log.lines.append("other"), start="earliest")
    system = serving(slow, other, stop_timeout=0.5)
    async with system:
        await begun.wait()
        assert (
            system.statistics().handlers["slow"].state == "catching up"
        )  # others need not wait for its turn
        await publish(system, 1)
        await until(lambda: log.lines == ["other"])
    assert cancelled.is_set()


async def test_an_error_while_closing_is_logged_and_the_others_are_closed(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(first: Annotated[str, Depends(resource(log, "first"))]) -> AsyncIterator[str]:
        yield first
        raise OSError("the line was cut")

    async with serving(handling(log, stubborn)) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["open first 1", "1 with first 1", "close first 1"]
    assert "resource closed with an error" in caplog.text
    assert "the line was cut" in caplog.text


async def test_a_task_group_may_be_open_as_long_as_the_handler() -> None:
    ended = asyncio.Event()

    async def background() -> AsyncIterator[asyncio.Queue[int]]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:  # may only be left by the task that has entered it
            work = group.create_task(queue.join())
            yield queue
            work.cancel()
        ended.set()

    async def handle(event: Credited, queue: Annotated[asyncio.Queue[int], Depends(background)]) -> None:
        queue.put_nowait(event.amount)

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert ended.is_set()


async def test_only_the_process_that_runs_the_handler_has_its_resource_open(log: Log) -> None:
    store, clock = BankStore(), ManualClock()
    logs = {name: Log() for name in "ab"}
    systems = {
        name: ActorSystem(
            store,
            name=name,
            aggregates=[],
            handlers=[handling(logs[name], resource(logs[name]))],
            clock=clock,
        )
        for name in "ab"
    }
    async with systems["a"], systems["b"]:
        await until(lambda: held(systems["a"]) == ["handler"] and logs["a"].opened)
        assert logs["b"].lines == []
        await systems["a"].unsubscribe("handler")
        assert logs["a"].lines == ["open mail 1", "close mail 1"]
        await clock.advance_until(lambda: held(systems["b"]) == ["handler"])
        await until(lambda: logs["b"].lines == ["open mail 1"])


async def test_a_lost_lease_closes_the_resource_at_once(log: Log) -> None:
    async with serving(handling(log, resource(log))) as system:
        await publish(system, 1)
        await system.settled()
        lease_is_lost(system, "handler")
        await until(lambda: log.lines[2:] == ["close mail 1"])
        lease_is_taken_again(system, "handler", 1)
        await publish(system, 2)
        await system.settled()
    assert log.lines[3:] == ["open mail 2", "2 with mail 2", "close mail 2"]


async def test_a_resource_is_closed_only_when_an_abandoned_thread_has_come_back(log: Log) -> None:
    release, begun = threading.Event(), threading.Event()

    def handle(
        event: Credited, mail: Annotated[str, Depends(resource(log))], context: HandlerContext
    ) -> None:
        if context.attempt == 1:
            begun.set()
            release.wait(20)
        log.lines.append(f"attempt {context.attempt} with {mail}")

    async with serving(HandlerSpec("handler", handle, start="earliest", timeout=0.05)) as system:
        await publish(system, 1)
        await until(begun.is_set)
        await until(lambda: system.statistics().handlers["handler"].failures == 1)
        assert log.lines == ["open mail 1"]
        release.set()
        await system.settled()
    assert log.lines[:2] == ["open mail 1", "attempt 1 with mail 1"]
    assert set(log.lines[2:4]) == {"close mail 1", "open mail 2"}
    assert log.lines[4:] == ["attempt 2 with mail 2", "close mail 2"]


async def test_a_retry_of_a_dead_letter_that_fails_opens_the_resource_anew(log: Log) -> None:
    works = False

    async def handle(event: Credited, mail: Annotated[str, Depends(resource(log))]) -> None:
        if not works:
            raise ConnectionError(mail)

    async with serving(HandlerSpec("handler", handle, start="earliest", max_attempts=1)) as system:
        await publish(system, 1)
        await until(system.store.dead_letters)
        opened = log.opened
        await system.retry_dead_letters("handler")
        await until(lambda: log.opened > opened)
        works = True
        await system.settled()
        await system.retry_dead_letters("handler")
        await system.settled()
        assert not await system.store.dead_letters()
    assert log.lines.count(f"open mail {log.opened}") == log.lines.count(f"close mail mail {log.opened}") + 1


async def test_a_directive_to_resume_keeps_the_resource_open(log: Log) -> None:
    mailer = resource(log)

    async def handle(event: Credited, mail: Annotated[str, Depends(mailer)]) -> None:
        if event.amount == 1:
            raise ValueError(mail)
        log.lines.append(f"{event.amount} with {mail}")

    supervisor = Supervisor(
        "quick", [HandlerSpec("handler", handle, start="earliest")], directives={ValueError: "resume"}
    )
    async with ActorSystem(aggregates=[], handlers=[], supervisors=[supervisor]) as system:
        await publish(system, 1, 2)
        await system.settled()
    assert log.lines == ["open mail 1", "2 with mail 1", "close mail 1"]


# --- a life of one call, or of the system ---


@pytest.mark.parametrize("kind", ["async", "plain", "async class", "decorated"])
async def test_a_resource_of_one_event_is_opened_for_each_call(log: Log, kind: str) -> None:
    async with serving(handling(log, resource(log, kind=kind), "event")) as system:
        await publish(system, 1, 2)
        await system.settled()
    assert log.lines == [
        line for n in (1, 2) for line in (f"open mail {n}", f"{n} with mail {n}", f"close mail {n}")
    ]


async def test_an_error_of_the_handler_reaches_its_transaction(log: Log) -> None:
    async def transaction(context: HandlerContext) -> AsyncIterator[str]:
        try:
            yield f"attempt {context.attempt}"
        except ValueError:
            log.lines.append("rolled back")
            raise
        else:
            log.lines.append("committed")

    async def handle(event: Credited, tried: Annotated[str, Depends(transaction, scope="event")]) -> None:
        log.lines.append(tried)
        if tried == "attempt 1":
            raise ValueError(tried)

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["attempt 1", "rolled back", "attempt 2", "committed"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_event_is_not_handled_because_a_resource_suppresses_the_error(log: Log, kind: str) -> None:
    def careless() -> Iterator[None]:
        try:
            yield
        except ValueError:
            log.lines.append("suppressed")

    async def handle(event: Credited, it: Annotated[None, Depends(careless, "event")]) -> None:
        raise ValueError("no")

    def handle_plainly(event: Credited, it: Annotated[None, Depends(careless, "event")]) -> None:
        raise ValueError("no")

    target = handle if kind == "async" else handle_plainly
    async with serving(HandlerSpec("handler", target, start="earliest", max_attempts=2)) as system:
        await publish(system, 1)
        await system.settled()
        (letter,) = await system.store.dead_letters()
    assert letter.error == "ValueError: no"
    assert log.lines == ["suppressed"] * 2


async def test_an_event_whose_transaction_cannot_commit_is_not_handled(log: Log) -> None:
    async def transaction() -> AsyncIterator[None]:
        yield
        if log.open("commit") == "commit 1":
            raise ConnectionError("not committed")

    async def handle(event: Credited, it: Annotated[None, Depends(transaction, "event")]) -> None: ...

    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
        assert system.statistics().handlers["handler"].failures == 1
        assert not await system.store.dead_letters()


async def test_handlers_of_one_system_share_a_resource_of_it(log: Log) -> None:
    pool = resource(log, "pool")

    async def session(pool: Annotated[str, Depends(pool, "system")]) -> AsyncIterator[str]:
        yield f"session of {pool}"

    both = [handling(log, pool, "system", name="one"), handling(log, session, name="two")]
    async with serving(*both) as system:
        await publish(system, 1)
        await system.settled()
        await system.unsubscribe("one")
        assert log.opened == 1
        assert "close pool 1" not in log.lines
        await system.unsubscribe("two")
        assert log.lines[-1] == "close pool 1"
    assert sorted(log.lines[1:3]) == ["1 with pool 1", "1 with session of pool 1"]


async def test_a_shared_resource_that_does_not_open_is_tried_again(log: Log) -> None:
    log.broken = 3
    pool = resource(log, "pool")
    both = [handling(log, pool, "system", name=name) for name in ("one", "two")]
    async with serving(*both) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines[-1] == "close pool 4"
    assert [line for line in log.lines if "with" in line] == ["1 with pool 4"] * 2


# --- parts of the system ---


async def test_parts_of_the_system_are_provided_by_their_class() -> None:
    seen: list[Any] = []
    clock = ManualClock()

    @subscribe(name="parts")
    async def handle(  # noqa: PLR0917 - all that there are
        event: Credited,
        context: HandlerContext,
        system: ActorSystem,
        services: SystemServices,
        store: EventStore,
        clock: Clock,
        memory: InMemoryEventStore,
    ) -> None:
        seen.append((context.handler, system, services, store, clock, memory))

    async with ActorSystem(aggregates=[], handlers=[handle], clock=clock) as system:
        await publish(system, 1)
        await system.settled()
        assert seen == [("parts", system, system, system.store, clock, system.store)]


async def test_a_store_of_another_class_is_a_failure_that_says_so() -> None:
    async def handle(event: Credited, store: LmdbEventStore) -> None: ...

    system = serving(HandlerSpec("handler", handle), budget=0)
    await system.start()
    with pytest.raises(SupervisorGaveUp, match="annotated with LmdbEventStore, .* is a InMemoryEventStore"):
        await system.wait_stopped()


async def test_a_class_that_is_imported_for_type_checkers_alone_is_known_by_its_name() -> None:
    seen: list[Any] = []

    async def handle(event: Credited, system: "ActorSystem", context: "HandlerContext") -> None:
        seen.append((context.handler, system))

    handle.__annotations__ |= {"system": "missing.ActorSystem", "context": "HandlerContext_".rstrip("_")}
    async with serving(HandlerSpec("handler", handle, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
        assert seen == [("handler", system)]


# --- classes ---


class Mailer:
    pass


async def test_classes_get_dependencies_in_their_constructor_and_attributes(log: Log) -> None:
    class Receipts(EventHandler[Credited]):
        mail: Annotated[str, Depends(resource(log))]

        def __init__(self, store: EventStore, mailer: Annotated[Mailer, Depends()]) -> None:
            super().__init__()
            self.store, self.mailer = store, mailer

        async def handle(self, event: Credited, system: ActorSystem) -> None:
            assert self.store is system.store
            assert isinstance(self.mailer, Mailer)
            log.lines.append(f"{event.amount} with {self.mail}")

    async with serving(Receipts) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["open mail 1", "1 with mail 1", "close mail 1"]


async def test_attributes_of_an_instance_are_opened_unless_they_are_set(log: Log) -> None:
    class Receipts(EventHandler[Credited]):
        mail: Annotated[str, Depends(resource(log))]
        other: Annotated[str, Depends(resource(log, "other"))]

        async def handle(self, event: Credited) -> None:
            log.lines.append(f"{self.mail} and {self.other}")

    given = Receipts()
    given.other = "mine"
    async with serving(HandlerSpec("handler", given, start="earliest")) as system:
        await publish(system, 1)
        await system.settled()
    assert "mail 1 and mine" in log.lines


async def test_each_partition_has_an_instance_of_its_own() -> None:
    seen: dict[str, set[int]] = {}

    class Each(EventHandler[Credited]):
        partitioned = 4

        def __init__(self) -> None:
            super().__init__()
            self.own = ""

        async def handle(self, event: Credited, context: HandlerContext) -> None:
            self.own = self.own or context.handler
            assert self.own == context.handler
            seen.setdefault(context.handler, set()).add(id(self))

    async with serving(HandlerSpec("each", Each(), start="earliest")) as system:
        events = [Credited(amount=1, aggregate_id=f"a{n}", aggregate_type="Account") for n in range(40)]
        await system.publisher.publish(*events, *events[:0])
        await system.settled()
        assert not await system.store.dead_letters()
    assert len(seen) == len(set.union(*seen.values())) == 4


async def test_an_instance_of_a_partitioned_projection_counts_every_event() -> None:
    class Totals(Projection[Credited, str]):
        partitioned = 4

        async def handle(self, event: Credited) -> None:
            key = event.aggregate_id or ""
            before = await self.view.get(key, 0)
            await asyncio.sleep(0)  # others have their turn
            self.view.put(key, before + event.amount)

    totals = Totals()
    async with ActorSystem(aggregates=[], handlers=[totals]) as system:
        for _ in range(2):
            await system.publisher.publish(
                *(Credited(amount=1, aggregate_id=f"a{n}", aggregate_type="Account") for n in range(40))
            )
        await system.settled()
        assert dict(await system.view(totals).range()) == {f"a{n}": 2 for n in range(40)}


# --- overrides ---


async def test_tests_put_other_functions_in_the_place_of_dependencies(log: Log) -> None:
    def real() -> str:
        raise AssertionError("not in a test")

    async def session(mail: Annotated[str, Depends(real)]) -> str:
        return f"session of {mail}"

    system = serving(handling(log, session), dependency_overrides={real: resource(log, "fake")})
    async with system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["open fake 1", "1 with session of fake 1", "close fake 1"]


def test_an_override_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidHandler, match=r"Mailer is replaced by 3, which cannot be called"):
        ActorSystem(handlers=[], dependency_overrides={Mailer: 3})  # type: ignore[dict-item]


# --- errors at definition ---


def _circle_a(b: "Annotated[int, Depends(_circle_b)]") -> int:
    return 1


def _circle_b(a: Annotated[int, Depends(_circle_a)]) -> int:
    return 1


def _wants_number(number: int) -> int:
    return number


def _of_event() -> int:
    return 1


def _longer(it: Annotated[int, Depends(_of_event, "event")]) -> int:
    return it


async def _opened_by_coroutine() -> int:
    return 1


def _of_context(context: HandlerContext) -> int:
    return 1


class _Foreign:
    dependency = staticmethod(_of_event)


async def _number(event: Credited, limit: int) -> None: ...
async def _third(event: Credited, context: HandlerContext, more) -> None: ...  # type: ignore[no-untyped-def]
async def _twice(event: Credited, context: HandlerContext, again: HandlerContext) -> None: ...
async def _nested(event: Credited, it: Annotated[int, Depends(_wants_number)]) -> None: ...
async def _circular(event: Credited, it: Annotated[int, Depends(_circle_a)]) -> None: ...
async def _outlives(event: Credited, it: Annotated[int, Depends(_longer)]) -> None: ...
async def _context_lasts(event: Credited, it: Annotated[int, Depends(_of_context)]) -> None: ...
async def _positional(event: Credited, it: Annotated[int, Depends(_of_event)], /) -> None: ...
async def _foreign(event: Credited, it: Annotated[int, _Foreign()]) -> None: ...
async def _foreign_default(event: Credited, it: Any = _Foreign()) -> None: ...  # noqa: B008 - what is tested
async def _several(event: Credited, it: Annotated[int, Depends(_of_event), Depends(_longer)]) -> None: ...
def _plain(event: Credited, it: Annotated[int, Depends(_opened_by_coroutine, "event")]) -> None: ...
async def _nothing(event: Credited, it: Annotated[Any, Depends()]) -> None: ...


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (
            _number,
            "parameter 'limit' is annotated with int; expected HandlerContext, ActorSystem, EventStore,",
        ),
        (_third, "parameter 'more' has no annotation; expected"),
        (_twice, "takes the HandlerContext twice"),
        (_nested, "_wants_number cannot be a dependency: parameter 'number' is annotated with int; expected"),
        (_circular, r"dependencies in a circle: .*_circle_a -> .*_circle_b -> .*_circle_a"),
        (
            _outlives,
            r"'it' of .*_longer lasts for one handler, and depends on .*_of_event, which is closed earlier",
        ),
        (_context_lasts, "parameter 'context' is the context of one call, and what it makes lasts longer"),
        (_positional, "'it' of .* is positional-only"),
        (_foreign, r"'it' of .* is annotated with .*_Foreign: write uno_actors.Depends\(function\)"),
        (
            _foreign_default,
            r"'it' of .* has as its default a .*_Foreign: write uno_actors.Depends\(function\)",
        ),
        (_several, "'it' of .* has more than one Depends"),
        (_plain, "plain function, and its parameter 'it' depends for each event on .*_opened_by_coroutine"),
        (_nothing, r"'it' of .*: Depends\(\) stands for the annotated class, and there is none"),
    ],
    ids=lambda value: getattr(value, "__name__", "error"),
)
def test_a_handler_that_cannot_be_given_what_it_takes_is_refused_where_it_is_defined(
    target: Any, error: str
) -> None:
    with pytest.raises(InvalidHandler, match=error):
        subscribe(name="wrong")(target)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((3,), "Depends.3.: a dependency is a function"),
        ((print, "request"), "scope must be one of 'event', 'handler', 'system', not 'request'"),
    ],
)
def test_a_dependency_that_is_none_is_refused(given: Any, error: str) -> None:
    with pytest.raises(InvalidHandler, match=error):
        Depends(*given)


def test_a_class_is_refused_for_its_handle_at_definition_and_for_its_constructor_when_it_is_given() -> None:
    with pytest.raises(InvalidHandler, match="parameter 'limit' is annotated with int"):

        @subscribe(name="wrong")
        class _Wrong(EventHandler[Credited]):
            async def handle(self, event: Credited, context: HandlerContext, limit: int) -> None: ...

    class Needs(EventHandler[Credited]):
        def __init__(self, file: str) -> None:
            super().__init__()

        async def handle(self, event: Credited) -> None: ...

    with pytest.raises(
        InvalidHandler, match=r"Needs cannot be made without arguments \(parameter 'file' is annotated"
    ):
        ActorSystem(handlers=[Needs])


async def test_the_default_of_an_attribute_is_a_dependency_or_refused(log: Log) -> None:
    class Kept(EventHandler[Credited]):
        it: str = Depends(resource(log, "kept"))  # type: ignore[assignment]  # as in a parameter

        async def handle(self, event: Credited) -> None:
            log.lines.append(f"{event.amount} with {self.it}")

    async with serving(Kept) as system:
        await publish(system, 1)
        await system.settled()
    assert log.lines == ["open kept 1", "1 with kept 1", "close kept 1"]

    class Foreign(EventHandler[Credited]):
        it: Any = _Foreign()

        async def handle(self, event: Credited) -> None: ...

    with pytest.raises(InvalidHandler, match=r"attribute 'it' of .* has as its default a .*_Foreign: write"):
        ActorSystem(handlers=[Foreign])


def test_a_name_that_is_never_defined_is_an_error_of_the_system() -> None:
    async def handle(event: Credited, it: "Annotated[int, Depends(nowhere)]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    subscribe(name="later")(handle)  # it may be defined later
    with pytest.raises(InvalidHandler, match="nowhere"):
        ActorSystem(handlers=[handle])


class Wide(Protocol):
    handler: str


def test_the_context_may_be_annotated_with_anything_that_it_fits() -> None:
    async def untyped(event: Credited, context) -> None: ...  # type: ignore[no-untyped-def]
    async def anything(event: Credited, context: Any) -> None: ...
    async def protocol(event: Credited, context: Wide) -> None: ...
    async def optional(event: Credited, context: "HandlerContext | None") -> None: ...

    for target in (untyped, anything, protocol, optional):
        assert HandlerSpec("x", target).instantiate().takes_context


# --- elsewhere ---


async def test_a_bus_refuses_handlers_with_dependencies_and_leaves_those_of_the_registry_to_systems(
    own_handlers: Any,
) -> None:
    from uno_actors.handlers.subscribe import handler_registry

    @subscribe(name="dependent")
    async def handle(event: Credited, store: EventStore) -> None:
        raise AssertionError("not on a bus")

    with pytest.raises(InvalidHandler, match="dependencies, which a bus has no supervisor to open for"):
        EventBus().subscribe(handle)
    bus = EventBus(registry=handler_registry)
    await bus.publish(Credited(amount=1), raise_errors=True)


def test_a_file_names_handlers_with_dependencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "receiving.py").write_text(
        """
from typing import Annotated
from uno_actors import Depends, DomainEvent, EventHandler, EventStore

def mailer() -> str:
    return "mail"

class Receipts(EventHandler[DomainEvent]):
    def __init__(self, mail: Annotated[str, Depends(mailer)], store: EventStore) -> None:
        super().__init__()
        self.mail = mail

    async def handle(self, event: DomainEvent) -> None: ...

class Wrong(EventHandler[DomainEvent]):
    def __init__(self, mail: str) -> None:
        super().__init__()

    async def handle(self, event: DomainEvent) -> None: ...
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "system.toml"
    file.write_text('[[handlers]]\nhandler = "receiving:Receipts"\n')
    system = ActorSystem.from_config(file)
    assert 'handler = "receiving:Receipts"' in system.to_config()
    file.write_text('[[handlers]]\nhandler = "receiving:Wrong"\n')
    with pytest.raises(Exception, match="parameter 'mail' is annotated with str"):
        load(file)
