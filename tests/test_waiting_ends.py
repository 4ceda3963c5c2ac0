"""Every wait ends, and with the right error.

Only the asker's own cancellation is a ``CancelledError``; whatever else becomes of what was asked arrives as an
error of ours, and the system goes on.
"""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.faults import stopping_is_cancelled
from tests.machine import patience
from tests.waiting import turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    AskTimeout,
    Backoff,
    BlockingCallOnLoop,
    ChildSpec,
    Command,
    CommandRejected,
    DomainEvent,
    EventRegistry,
    ExitRaised,
    Future,
    OutcomeUnknown,
    StartTimeout,
    Supervisor,
    SystemNotRunning,
    UnoError,
    WaitsForItself,
    WorkCancelled,
    handles,
    open_store,
)
from uno_actors.actors.actor import ActorDeadError
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.errors import MAX_FRAMES, as_error, describe, shown
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.printable import traceback_text
from uno_actors.tasks import begin, end_of
from uno_actors.testing import inspect


class Deposit(Command[int]):
    amount: int


class Deposited(DomainEvent):
    amount: int


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        if command.amount < 0:
            raise CommandRejected("negative")
        self.register_event(Deposited(amount=command.amount))
        return self.balance

    def apply_deposited(self, event: Deposited) -> None:
        self.balance += event.amount


REGISTRY = EventRegistry([Deposited])


def system(**options: Any) -> ActorSystem:
    return ActorSystem(
        **{
            "aggregates": [Account],
            "handlers": [],
            "event_registry": REGISTRY,
            "stop_timeout": 2.0,
            **options,
        }
    )


async def end_of_ask(reply: Any) -> Any:
    """The value or the error with which it ends; a cancellation that is not ours fails the test."""
    try:
        return await asyncio.wait_for(asyncio.ensure_future(_awaited(reply)), 10)
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error


async def _awaited(reply: Any) -> Any:
    return await reply


# --- cancellation ------------------------------------------------------------------------------------------


class CancelsItself(Actor):
    async def on_receive(self, message: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if message == "before the first await":
            task.cancel()
            await asyncio.sleep(0)
        elif message == "while it waits":
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.sleep(60)
        elif message == "and does not wait any more":
            task.cancel()
        elif message == "on a worker":
            task.cancel()
            await self.plainly()
        elif isinstance(message, BaseException):
            raise message
        return message

    async def plainly(self) -> None:
        await asyncio.sleep(0)


WAYS = ["before the first await", "while it waits", "on a worker", asyncio.CancelledError("a closed client")]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_actor_whose_work_is_cancelled_answers_with_our_error_and_continues(way: Any) -> None:
    async with system() as running:
        actors = [await running.spawn(CancelsItself) for _ in range(3)]
        replies = [actor.ask(way, timeout=5) for actor in actors]
        for reply in replies:
            error = await end_of_ask(reply)
            assert isinstance(error, WorkCancelled), error
            assert isinstance(error.__cause__, asyncio.CancelledError)
        assert [await actor.ask("hi", timeout=5) for actor in actors] == ["hi"] * 3


async def test_a_cancellation_that_comes_too_late_changes_nothing() -> None:
    async with system() as running:
        actor = await running.spawn(CancelsItself)
        late = "and does not wait any more"
        assert await actor.ask(late, timeout=5) == late
        assert await actor.ask("hi", timeout=5) == "hi"


async def test_a_task_group_does_not_end_as_if_the_work_were_done_when_an_actor_is_cancelled() -> None:
    async with system() as running:
        actor = await running.spawn(CancelsItself)
        with pytest.raises(ExceptionGroup) as group:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_awaited(actor.ask("while it waits")))
    assert isinstance(group.value.exceptions[0], WorkCancelled)


async def test_the_cancellation_of_an_asker_reaches_the_asker_alone() -> None:
    async with system() as running:
        actor = await running.spawn(Sleeps)
        asking = asyncio.ensure_future(_awaited(actor.ask(60)))
        await until(lambda: actor.statistics().state == "handling")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert asking.cancelled()


class Sleeps(Actor):
    async def on_receive(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


async def test_a_plain_function_of_a_cancelled_actor_is_waited_for_so_that_no_two_run_at_once() -> None:
    entered, leave = threading.Event(), threading.Event()
    running_now: list[int] = []

    class Plain(Actor):
        async def task(self) -> Any:
            return asyncio.current_task()

        def slowly(self) -> int:
            running_now.append(1)
            entered.set()
            leave.wait(10)
            running_now.remove(1)
            return len(running_now)

        def quickly(self) -> list[int]:
            return list(running_now)

    async with system() as running:
        actor = await running.spawn(Plain)
        first, second = actor.proxy().slowly(), actor.proxy().slowly()
        await until(entered.is_set)
        cell: Any = actor.actor_inbox.cell
        cell.turns.task.cancel()
        await turns()  # the cancellation has arrived, and the second would have been given to a worker
        other = await running.spawn(Plain)
        assert await other.proxy().quickly() == [1]  # on a worker that was given its work after the second's
        assert running_now == [1]
        leave.set()
        assert [await first, await second] == [0, 0]


async def test_events_of_handlers_that_cancel_themselves_become_dead_letters_and_delay_no_other() -> None:
    async def alone(event: Deposited) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def raises(event: Deposited) -> None:
        raise asyncio.CancelledError

    specs = [
        HandlerSpec("alone", alone, start="earliest", max_attempts=2),
        HandlerSpec("abreast", alone, start="earliest", max_attempts=2, concurrency=3),
        HandlerSpec("limited", alone, start="earliest", max_attempts=2, timeout=5),
        HandlerSpec("raises", raises, start="earliest", max_attempts=2, concurrency=3),
    ]
    quick = Supervisor("quick", children=specs, max_restarts=None, backoff=Backoff(initial=0.01, max=0.02))
    async with system(supervisors=[quick]) as running:
        await running.publisher.publish(*(Deposited(amount=n) for n in range(2)))
        await running.settled(20)
        letters = await running.store.dead_letters()
        assert sorted({letter.handler for letter in letters}) == ["abreast", "alone", "limited", "raises"]
        assert len(letters) == 8


class ReadCancelled:
    """Makes the first reads of a store end as if a driver had cancelled them."""

    def __init__(self, store: Any, times: int = 1) -> None:
        self.left = times
        self._read = store.last_version
        store.last_version = self.last_version

    async def last_version(self, *arguments: Any, **options: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            raise asyncio.CancelledError
        return await self._read(*arguments, **options)


async def test_a_read_that_is_cancelled_under_the_store_is_an_error_of_the_world_and_is_tried_again() -> None:
    store = open_store("memory:", REGISTRY)
    ReadCancelled(store)
    async with system(store=store) as running:
        error = await end_of_ask(running.aggregate(Account, "a").ask(Deposit(amount=1)))
        assert isinstance(error, WorkCancelled)
        assert await running.aggregate(Account, "a").ask(Deposit(amount=1)) == 1


async def test_a_commit_that_is_cancelled_under_the_store_has_an_unknown_outcome_and_the_next_succeed() -> (
    None
):
    store: Any = open_store("memory:", REGISTRY)
    commit, begun = store.commit, asyncio.Event()

    async def stuck(requests: Any) -> Any:
        store.commit = commit
        begun.set()
        await asyncio.sleep(60)

    store.commit = stuck
    async with system(store=store) as running:
        first = asyncio.ensure_future(end_of_ask(running.aggregate(Account, "a").ask(Deposit(amount=1))))
        await begun.wait()
        second = asyncio.ensure_future(end_of_ask(running.aggregate(Account, "b").ask(Deposit(amount=2))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (journal,) = [task for task in asyncio.all_tasks() if task.get_name() == "journal"]
        journal.cancel()
        assert isinstance(await first, OutcomeUnknown)
        assert await second == 2


@pytest.fixture
def _collected_afterwards() -> Iterator[None]:
    """Collect what a test leaves behind while its own filters of warnings hold, not in a later test."""
    yield
    gc.collect()


# SQLAlchemy gives up a connection that is cancelled while it is being made, and warns when it is collected.
@pytest.mark.usefixtures("_collected_afterwards")
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up non-checked-in connection")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("url", ["memory:", "lmdb:{}", "sqlite+aiosqlite:///{}"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 30])
async def test_a_system_whose_tasks_are_all_cancelled_answers_every_asker_and_continues(
    url: str, turns: int, tmp_path: Any
) -> None:
    """``for task in asyncio.all_tasks(): task.cancel()``, as some programs do although they do not end."""
    counted: list[int] = []

    async def count(event: Deposited) -> None:
        counted.append(event.amount)
        await asyncio.sleep(0)

    sleeps = ChildSpec(Sleeps, "sleeper")
    handler = HandlerSpec("count", count, start="earliest", max_attempts=100)
    quick = Supervisor(
        "quick", children=[handler, sleeps], max_restarts=None, backoff=Backoff(initial=0.01, max=0.02)
    )
    async with system(store=url.format(tmp_path / "store"), supervisors=[quick]) as running:
        for _ in range(3):
            sleeper = running.actor("sleeper")
            assert sleeper is not None
            asks = [
                running.aggregate(Account, f"a{n}").ask(Deposit(amount=1), timeout=patience(5))
                for n in range(5)
            ]
            asks.append(sleeper.ask(0.01, timeout=patience(5)))
            ends = [asyncio.ensure_future(end_of_ask(reply)) for reply in asks]
            for _ in range(turns):
                await asyncio.sleep(0)
            ours = {asyncio.current_task(), *ends}
            waiting_in_ends = {task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_awaited"}  # type: ignore[union-attr]
            for task in asyncio.all_tasks() - ours - waiting_in_ends:
                task.cancel()
            for end in await asyncio.gather(*ends):
                assert isinstance(end, (int, float, UnoError)), repr(end)
                assert not isinstance(end, AskTimeout)
        balance = await running.aggregate(Account, "after").ask(Deposit(amount=7), timeout=patience(5))
        assert balance == 7
        await running.settled(patience(20))
        assert 7 in counted
        sleeper = running.actor("sleeper")
        assert sleeper is not None
        assert await sleeper.ask(0, timeout=patience(5)) == 0
    assert inspect(running).state == "stopped"


async def test_a_restart_that_the_program_cancels_is_made_all_the_same() -> None:
    class Fragile(Actor):
        async def on_receive(self, message: str) -> str:
            if message == "fail":
                raise ValueError
            return message

    slow = Supervisor("slow", children=[ChildSpec(Fragile, "fragile")], backoff=Backoff(initial=0.1, max=0.1))
    async with system(supervisors=[slow]) as running:
        actor = running.actor("fragile")
        assert actor is not None
        actor.tell("fail")
        await until(lambda: running.tree().children[-1].children[0].state == "restarting")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await actor.ask("hi", timeout=5) == "hi"


async def test_stopping_continues_when_the_program_cancels_it() -> None:
    running = system(stop_timeout=5.0)
    await running.start()
    actor = await running.spawn(Sleeps)
    reply = asyncio.ensure_future(end_of_ask(actor.ask(0.2)))
    await until(lambda: actor.statistics().state == "handling")
    stopping = asyncio.ensure_future(running.stop())
    await until(lambda: inspect(running).state == "stopping")
    stopping_is_cancelled(running)
    await stopping
    assert await reply == 0.2, "the actor was stopped in order"
    assert inspect(running).state == "stopped"


async def test_a_task_of_ours_begins_also_if_it_is_cancelled_before_its_first_step() -> None:
    went: list[str] = []

    async def work() -> None:
        went.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            went.append("cancelled where it waits")

    task = begin(asyncio.get_running_loop(), work())
    task.cancel()
    with pytest.raises(WorkCancelled, match="the work"):
        await end_of(task, "the work")
    assert went == ["begun", "cancelled where it waits"]


async def test_a_cancelled_caller_of_end_of_leaves_the_task_alone() -> None:
    go_on = asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        return "done"

    task = begin(asyncio.get_running_loop(), work())
    waiting = asyncio.ensure_future(end_of(task, "the work"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await end_of(task, "the work") == "done"


def test_in_a_synchronous_program_a_cancelled_coroutine_is_an_error_of_ours() -> None:
    async def cancels_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)

    with system() as running:
        with pytest.raises(WorkCancelled):
            running.run(cancels_all())
        assert running.aggregate(Account, "a").ask(Deposit(amount=1)).get(timeout=5) == 1


# --- what is no Exception ----------------------------------------------------------------------------------


class OddBase(BaseException):
    pass


ODD: list[BaseException] = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    OddBase("x"),
    BaseExceptionGroup("several", [SystemExit(1), ValueError("v")]),
    StopIteration(5),
    StopAsyncIteration(),
]


class RaisesPlainly(Actor):
    def on_receive(self, message: BaseException) -> None:
        raise message


class RaisesAfterWaiting(Actor):
    async def on_receive(self, message: BaseException) -> None:
        await asyncio.sleep(0)
        raise message


class RaisesAtOnce(Actor):
    async def on_receive(self, message: BaseException) -> None:
        raise message


class ReturnsNoCoroutine(RaisesAtOnce):
    def __init__(self) -> None:
        super().__init__()
        self.on_receive = self._plain  # type: ignore[method-assign]

    def _plain(self, message: BaseException) -> None:
        raise message


@pytest.mark.parametrize("error", ODD, ids=repr)
@pytest.mark.parametrize("kind", [RaisesPlainly, RaisesAfterWaiting, RaisesAtOnce, ReturnsNoCoroutine])
async def test_what_is_no_exception_arrives_as_an_error_and_ends_nothing_but_that_work(
    kind: type[Actor], error: BaseException
) -> None:
    async with system() as running:
        actor = await running.spawn(kind)
        end = await end_of_ask(actor.ask(error, timeout=5))
        assert isinstance(end, (ExitRaised, RuntimeError)), repr(end)  # Python's own, of a StopIteration
        cause = end.__cause__
        assert cause is error
        assert isinstance(await end_of_ask(actor.ask(ValueError("v"), timeout=5)), ValueError)


@pytest.mark.parametrize("error", ODD, ids=repr)
async def test_what_on_start_raises_arrives_as_an_error(error: BaseException) -> None:
    class Fails(Actor):
        async def on_start(self) -> None:
            raise error

    async with system() as running:
        end = await end_of_ask(running.spawn(Fails))
        assert isinstance(end, (ExitRaised, RuntimeError)), repr(end)


def test_a_cancellation_in_an_exception_group_is_a_cancellation() -> None:
    group = BaseExceptionGroup(
        "g", [asyncio.CancelledError(), BaseExceptionGroup("h", [asyncio.CancelledError()])]
    )
    assert isinstance(as_error(group, "work"), WorkCancelled)
    assert isinstance(
        as_error(BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit()]), "w"), ExitRaised
    )
    mistake = ValueError()
    assert as_error(mistake, "work") is mistake


def test_a_future_never_raises_stop_iteration_which_would_end_the_loop_of_its_caller() -> None:
    future: Future[int] = Future()
    future.set_exception(StopIteration(1))
    with pytest.raises(ExitRaised):
        next(future.get() for _ in range(1))


# --- user code on the way of a failure ---------------------------------------------------------------------


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Leaves(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class NeverTrue(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        raise RuntimeError("not hashable")

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


HOSTILE: list[Callable[[], Exception]] = [Unshowable, Leaves, NeverTrue]


class Shy(Actor):
    """An actor that cannot be shown either."""

    def __str__(self) -> str:
        raise RuntimeError("no name")

    __repr__ = __str__

    async def on_receive(self, message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        return message


class ShyPlain(Shy):
    def on_receive(self, message: Any) -> Any:  # type: ignore[override]
        if isinstance(message, Exception):
            raise message
        return message


@pytest.fixture(params=["library", "program's logging raises", "program's logging exits"])
def logging_of(request: pytest.FixtureRequest) -> Iterator[None]:
    def bad(*_: Any) -> Any:
        raise KeyError("request_id") if "raises" in request.param else SystemExit(4)

    if request.param != "library":
        structlog.configure(processors=[bad])
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_of")
@pytest.mark.parametrize("error", HOSTILE)
@pytest.mark.parametrize("kind", [Shy, ShyPlain])
async def test_errors_actors_and_logging_that_raise_keep_no_asker_waiting(
    kind: type[Actor], error: Callable[[], Exception]
) -> None:
    handled: list[int] = []

    async def fails(event: Deposited) -> None:
        if event.amount == 2:
            raise error()
        handled.append(event.amount)

    handler = HandlerSpec("fails", fails, start="earliest", max_attempts=2)
    quick = Supervisor(
        "quick", children=[handler], max_restarts=None, backoff=Backoff(initial=0.01, max=0.02)
    )
    async with system(supervisors=[quick]) as running:
        actor = await running.spawn(kind)
        assert isinstance(await end_of_ask(actor.ask(error(), timeout=5)), error)  # type: ignore[arg-type]
        assert await actor.ask("hi", timeout=5) == "hi"
        actor.tell(error())
        await until(lambda: not actor.is_alive())
        assert isinstance(await end_of_ask(actor.ask("hi")), ActorDeadError)
        await running.publisher.publish(*(Deposited(amount=n) for n in (1, 2, 3)))
        await running.settled(10)
        assert handled == [1, 3]
        assert len(await running.store.dead_letters()) == 1


def test_whatever_cannot_be_shown_is_described_all_the_same() -> None:
    assert describe(Unshowable()) == "Unshowable (its text cannot be shown)"
    assert describe(Leaves()) == "Leaves (its text cannot be shown)"
    assert shown(Unshowable(), repr) == "<Unshowable that cannot be shown: RuntimeError>"
    assert shown("\ud800") == "\\ud800"


def test_the_traceback_of_an_error_that_refuses_inspection_says_where_it_was_raised() -> None:
    try:
        raise NeverTrue
    except NeverTrue as error:
        text = traceback_text(error)
    assert "raise NeverTrue" in text
    if sys.version_info < (3, 14):  # from then on Python's own traceback survives such an error
        assert "NeverTrue (" in text


# --- killed in the moment of failure -----------------------------------------------------------------------


async def test_an_ask_whose_actor_fails_at_the_moment_it_is_killed_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread looks whether it was killed before `kill` looks what it handles; both orders, made sure."""
    entered, killed = threading.Event(), threading.Event()

    class Fails(Actor):
        def on_receive(self, message: Any) -> None:
            entered.set()
            killed.wait(10)
            raise RuntimeError("interrupted")

    async with system() as running:
        actor = await running.spawn(Fails)
        cell: Any = actor.actor_inbox.cell
        done_with = cell.done_with

        def slowly(envelope: Any) -> None:
            done_with(envelope)  # from here on `kill` finds no asker to answer
            cell.dispatcher.post(cell.kill)
            assert cell.stopped.wait(10)

        monkeypatch.setattr(type(cell), "done_with", lambda _, envelope: slowly(envelope))
        reply = asyncio.ensure_future(end_of_ask(actor.ask("x", timeout=60)))
        await until(entered.is_set)
        killed.set()
        assert isinstance(await reply, RuntimeError)


async def test_a_message_taken_at_the_moment_its_actor_is_killed_is_answered_and_not_handled() -> None:
    handled: list[Any] = []

    class Plain(Actor):
        def on_receive(self, message: Any) -> None:
            handled.append(message)

    async with system() as running:
        actor = await running.spawn(Plain)
        cell: Any = actor.actor_inbox.cell
        queue, take = cell.inbox.open()

        def take_slowly() -> Any:
            envelope = take()  # `kill` finds it neither in the mailbox nor in hand
            cell.kill()
            return envelope

        cell.inbox = _Between(cell.inbox, queue, take_slowly)
        end = await end_of_ask(actor.ask("x", timeout=60))
        assert isinstance(end, ActorDeadError)
        assert handled == []


class _Between:
    """A mailbox in the middle of whose emptying something happens."""

    def __init__(self, inbox: Any, queue: Any, take: Callable[[], Any]) -> None:
        self._mailbox, self._opened = inbox, (queue, take)

    def open(self) -> Any:
        return self._opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mailbox, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_mailbox", "_opened"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._mailbox, name, value)


# --- starting, stopping, waiting for oneself ---------------------------------------------------------------


class NeverStarts(Actor):
    async def on_start(self) -> None:
        await asyncio.sleep(3600)


class NeverStartsPlainly(Actor):
    leave: threading.Event

    def on_start(self) -> None:
        self.leave.wait(60)

    def on_receive(self, message: Any) -> None: ...


@pytest.mark.parametrize("kind", [NeverStarts, NeverStartsPlainly])
async def test_the_spawn_of_an_actor_that_never_starts_ends_with_the_time_of_an_ask(
    kind: type[Actor],
) -> None:
    NeverStartsPlainly.leave = threading.Event()
    async with system(ask_timeout=0.1) as running:
        try:
            with pytest.raises(StartTimeout, match="did not start within 0.1 s and was abandoned"):
                await running.spawn(kind, name="late")
            await until(lambda: running.actor("late") is None)
        finally:
            NeverStartsPlainly.leave.set()


async def test_a_child_that_never_starts_ends_with_what_is_left_of_the_time_of_its_parents_ask() -> None:
    class Parent(Actor):
        async def on_receive(self, message: Any) -> str:
            try:
                await self.spawn(NeverStarts)
            except StartTimeout as error:
                return str(error)
            return "started"

    async with system() as running:
        parent = await running.spawn(Parent)
        end = await end_of_ask(parent.ask("x", timeout=0.2))
        assert isinstance(end, AskTimeout) or "has not started" in end


def test_a_spawn_got_on_a_thread_ends_as_well() -> None:
    with system(ask_timeout=0.1) as running, pytest.raises(StartTimeout):
        running.spawn(NeverStarts).get()


async def test_nothing_is_spawned_from_outside_while_the_system_stops() -> None:
    running = system(stop_timeout=5)
    await running.start()
    actor = await running.spawn(Sleeps)
    reply = asyncio.ensure_future(end_of_ask(actor.ask(0.2)))
    await until(lambda: actor.statistics().state == "handling")
    stopping = asyncio.ensure_future(running.stop())
    await until(lambda: inspect(running).state == "stopping")
    with pytest.raises(SystemNotRunning, match="stopping"):
        running.spawn(Sleeps)
    await stopping
    assert await reply == 0.2


async def test_an_actor_that_stops_spawns_no_other_that_would_outlive_the_system() -> None:
    refused: list[Exception] = []

    class Last(Actor):
        async def on_stop(self) -> None:
            try:
                await self.spawn(Sleeps)
            except SystemNotRunning as error:
                refused.append(error)

    async with system() as running:
        await running.spawn(Last)
    assert len(refused) == 1
    assert not inspect(running).actors


async def test_settled_in_a_handler_is_an_error_at_once_that_names_the_handler_and_the_remedy() -> None:
    errors: list[Exception] = []
    left_behind: list[asyncio.Task[None]] = []
    handled = asyncio.Event()
    running = system()

    async def waits(event: Deposited) -> None:
        try:
            await asyncio.wait_for(running.settled(), 20)
        except WaitsForItself as error:
            errors.append(error)

    async def leaves_behind(event: Deposited) -> None:
        async def later() -> None:
            await handled.wait()
            await running.settled()

        left_behind.append(asyncio.ensure_future(later()))

    handlers = [HandlerSpec("waits", waits), HandlerSpec("leaves", leaves_behind)]
    running = system(handlers=handlers)
    async with running:
        await running.publisher.publish(Deposited(amount=1))
        await running.settled(10)
        handled.set()
        (error,) = errors
        assert "handler waits waits for settled()" in str(error)
        assert "outside" in str(error)
        await asyncio.gather(*left_behind)


def test_settled_in_a_plain_handler_of_a_synchronous_program_is_the_same_error() -> None:
    errors: list[Exception] = []

    def waits(event: Deposited) -> None:
        try:
            running.run(running.settled())
        except WaitsForItself as error:
            errors.append(error)

    running = system(handlers=[HandlerSpec("waits", waits)])
    with running:
        running.run(running.publisher.publish(Deposited(amount=1)))
        running.run(running.settled(10))
    assert len(errors) == 1


def test_to_run_a_coroutine_on_the_loops_own_thread_is_an_error_and_no_standstill() -> None:
    class Blocks(Actor):
        async def on_receive(self, message: Any) -> Any:
            return running.run(asyncio.sleep(0))

    running = system()
    with running, pytest.raises(BlockingCallOnLoop, match="run"):
        running.spawn(Blocks).get(timeout=5).ask("x").get(timeout=5)


async def test_a_worker_that_waits_for_a_closed_loop_does_not_wait_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    loop = asyncio.new_event_loop()
    dispatcher = Dispatcher(loop)
    handed_over, call = threading.Event(), loop.call_soon_threadsafe

    def observed(*arguments: Any) -> asyncio.Handle:
        handle = call(*arguments)
        handed_over.set()
        return handle

    monkeypatch.setattr(loop, "call_soon_threadsafe", observed)

    def waits() -> None:
        try:
            dispatcher.run_coroutine(asyncio.sleep(0))
        except Exception:  # noqa: BLE001 - that it ends is what counts
            ended.set()

    dispatcher.workers.submit(waits)
    await until(handed_over.is_set)  # to a loop that never runs
    assert not ended.is_set()
    loop.close()
    await until(ended.is_set)
    dispatcher.workers.close()


# --- errors are let go of ----------------------------------------------------------------------------------


class Traced(Exception):
    """One that can be watched."""


class FailsPlainly(Actor):
    def on_receive(self, message: Any) -> None:
        raise Traced


class FailsAtOnce(Actor):
    async def on_receive(self, message: Any) -> None:
        raise Traced


class FailsLater(Actor):
    async def on_receive(self, message: Any) -> None:
        await asyncio.sleep(0)
        raise Traced


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of other tests
@pytest.mark.parametrize("kind", [FailsPlainly, FailsAtOnce, FailsLater])
async def test_an_error_that_was_answered_is_freed_without_the_cyclic_garbage_collector(
    kind: type[Actor],
) -> None:
    async with system() as running:
        actor = await running.spawn(kind)
        gc.collect()
        gc.disable()
        try:
            watched = [await _failing(actor) for _ in range(20)]
            await until(lambda: sum(reference() is not None for reference in watched[:-1]) == 0)
        finally:
            gc.enable()


async def _failing(actor: Any) -> "weakref.ref[Exception]":
    reference = None
    try:
        await actor.ask("x", timeout=patience(5))
    except Traced as error:
        reference = weakref.ref(error)
    assert reference is not None
    return reference


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of other tests
async def test_a_rejected_command_leaves_no_reference_cycle() -> None:
    async with system() as running:
        account = running.aggregate(Account, "a")
        await account.ask(Deposit(amount=1))
        gc.collect()
        gc.disable()
        try:
            watched: list[weakref.ref[Exception]] = []
            for _ in range(20):
                try:
                    await account.ask(Deposit(amount=-1))
                except CommandRejected as error:
                    watched.append(weakref.ref(error))
            living = sum(reference() is not None for reference in watched[:-1])
        finally:
            gc.enable()
        assert living == 0


async def test_one_error_for_many_askers_does_not_grow_without_limit() -> None:
    shared = Traced("the same for all")

    class Shares(Actor):
        async def on_receive(self, message: Any) -> None:
            raise shared

    def depth() -> int:
        count, place = 0, shared.__traceback__
        while place is not None:
            count, place = count + 1, place.tb_next
        return count

    async with system() as running:
        actor = await running.spawn(Shares)
        depths = []
        for _ in range(400):
            assert await end_of_ask(actor.ask("x")) is shared
            depths.append(depth())
    assert depths[-1] <= MAX_FRAMES + 20, "those of the last asker come in front"


# --- the program's task factory ----------------------------------------------------------------------------


def _refuses(_: Any, coroutine: Any, **__: Any) -> Any:
    coroutine.close()
    raise AssertionError("the runtime makes its tasks by itself")


EAGER = getattr(asyncio, "eager_task_factory", None)  # Python 3.12 and later
FACTORIES = [_refuses, *([] if EAGER is None else [EAGER])]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("url", ["memory:", "lmdb:{}"])
async def test_it_does_not_matter_when_the_programs_task_factory_runs_the_first_step(
    url: str, factory: Any, tmp_path: Any
) -> None:
    """A commit that is over before ``create_task`` returns, as with eager tasks, was the last of its journal."""
    handled: list[int] = []

    async def count(event: Deposited) -> None:
        handled.append(event.amount)

    handlers = [HandlerSpec("count", count), HandlerSpec("abreast", count, concurrency=2)]
    asyncio.get_running_loop().set_task_factory(factory)
    try:
        async with system(store=url.format(tmp_path / "store"), handlers=handlers) as running:
            account = running.aggregate(Account, "a")
            assert [await account.ask(Deposit(amount=1), timeout=5) for _ in range(5)] == [1, 2, 3, 4, 5]
            actor = await running.spawn(CancelsItself)
            assert isinstance(await _error_of(actor.ask("while it waits", timeout=5)), WorkCancelled)
            await running.settled(10)
            assert handled == [1] * 10
    finally:
        asyncio.get_running_loop().set_task_factory(None)


async def _error_of(reply: Any) -> Exception | None:
    try:
        await reply
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error
    return None
