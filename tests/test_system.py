"""The system: started, used from coroutines and threads, and stopped."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pykka
import pytest

from tests.bank import EVENTS, Account, Balance, BankStore, Credit, Credited, Debit, Debited, credited
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Backoff,
    ChildSpec,
    Command,
    CommandRejected,
    DomainEvent,
    EventHandler,
    EventPriority,
    ExitRaised,
    HandlerContext,
    InvalidStoreUrl,
    OutcomeUnknown,
    StoreUnavailable,
    Supervisor,
    SystemNotRunning,
    UnknownAggregateType,
    handles,
    subscribe,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import HandlerRegistry
from uno_stores import InMemoryEventStore

pytestmark = pytest.mark.uno_actors_leaks


@pytest.fixture(autouse=True)
def registry(own_handlers: HandlerRegistry) -> HandlerRegistry:
    return own_handlers


class ThreadStore(InMemoryEventStore):
    """A bank store that can be made on any thread: it has no asyncio event."""

    def __init__(self) -> None:
        super().__init__(EVENTS)
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1
        await super().close()


# --- asynchronous and synchronous use ---


async def test_it_runs_inside_the_block_and_outside_it_reports_that_it_does_not() -> None:
    system = ActorSystem(BankStore(), handlers=[], name="bank")
    assert repr(system) == "<ActorSystem bank (not started)>"
    account = system.aggregate(Account, "alice")
    for use in (lambda: account.ask(Balance()), system.statistics, lambda: system.spawn(Actor)):
        with pytest.raises(SystemNotRunning, match="'bank' is not started: use it inside"):
            use()
    with pytest.raises(SystemNotRunning):
        await system.settled()
    async with system as entered:
        assert entered is system
        assert repr(system) == "<ActorSystem bank (running)>"
        assert await account.ask(Credit(amount=2)) == 2
    assert repr(system) == "<ActorSystem bank (stopped)>"
    with pytest.raises(SystemNotRunning, match="'bank' is stopped") as caught:
        account.ask(Balance())
    assert caught.value.state == "stopped"
    with pytest.raises(SystemNotRunning):
        account.tell(Balance())
    assert system.statistics().commands == 1, "what it did can still be read"


async def test_it_is_started_once() -> None:
    system = ActorSystem(BankStore(), handlers=[])
    async with system:
        with pytest.raises(SystemNotRunning, match="running and cannot be started again"):
            await system.start()
    with pytest.raises(SystemNotRunning, match="stopped and cannot be started again"):
        await system.start()


def test_a_synchronous_program_uses_it_with_get() -> None:
    store = ThreadStore()
    with ActorSystem(store, handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        assert account.ask(Credit(amount=5)).get(timeout=5) == 5
        with pytest.raises(CommandRejected):
            account.ask(Debit(amount=9)).get(timeout=5)
        account.tell(Credit(amount=1))
        name = f"uno-{system.name}"
        assert name in {thread.name for thread in threading.enumerate()}
    assert store.records[-1].aggregate_version == 2, "what was told is handled before the end"
    assert name not in {thread.name for thread in threading.enumerate()}
    assert store.closed == 0, "who gives a store closes it"


def test_a_synchronous_program_without_a_block_starts_and_stops_it() -> None:
    system = ActorSystem("memory:", handlers=[])
    assert system.start_sync() is system
    with pytest.raises(SystemNotRunning, match="running and cannot be started again"):
        system.start_sync()
    assert system.run(system.settled()) is None  # it still has its loop
    system.stop_sync()
    system.stop_sync()
    assert repr(system) == "<ActorSystem system (stopped)>"


def test_a_system_that_was_never_started_has_nothing_to_stop() -> None:
    ActorSystem("memory:", handlers=[]).stop_sync()


def test_a_forked_process_does_not_stop_the_system_of_its_parent() -> None:
    with ActorSystem("memory:", handlers=[]) as system:
        child = os.fork()
        if child == 0:
            system.stop_sync()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert system.run(system.settled()) is None


def test_a_program_that_stops_its_system_when_the_interpreter_ends_closes_the_store(tmp_path: Path) -> None:
    """Threads take no more work then."""
    program = (
        "import atexit, concurrent.futures, sys\nfrom uno_actors import ActorSystem\n"
        "system = ActorSystem(sys.argv[1], handlers=[]).start_sync()\natexit.register(system.stop_sync)\n"
        "atexit.register(print, 'ends')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, f"lmdb:{tmp_path}/store"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ends\n", "")


def test_a_synchronous_program_gets_the_error_of_a_start_that_fails() -> None:
    before = set(threading.enumerate())

    class Refuses(EventHandler[Credited]):
        def __init__(self) -> None:
            raise SystemExit(5)

    system = ActorSystem(ThreadStore(), handlers=[Refuses])
    with pytest.raises(ExitRaised, match="SystemExit: 5"), system:
        raise AssertionError("never reached")
    assert [thread for thread in set(threading.enumerate()) - before if "uno-system" in thread.name] == []


async def test_many_threads_send_at_once(tmp_path: Path) -> None:
    async with ActorSystem(BankStore(), handlers=[]) as system:

        def send(number: int) -> int:
            account = system.aggregate(Account, f"account-{number % 3}")
            for _ in range(20):
                account.tell(Credit(amount=1))
            return account.ask(Credit(amount=1)).get(timeout=30)

        with ThreadPoolExecutor(6) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, send, number) for number in range(6)))
        await system.settled()
        balances = [await system.aggregate(Account, f"account-{n}").ask(Balance()) for n in range(3)]
    assert balances == [42, 42, 42]


async def test_messages_of_one_thread_keep_their_order() -> None:
    class Note(Command[None]):
        number: int

    seen: list[int] = []

    class Book(AggregateRoot):
        @handles
        def note(self, command: Note) -> None:
            seen.append(command.number)

    async with ActorSystem(BankStore(), handlers=[]) as system:
        book = system.aggregate(Book, "b")

        def send() -> None:
            for number in range(200):
                book.tell(Note(number=number))

        await asyncio.to_thread(send)
        await system.settled()
    assert seen == list(range(200))


async def test_two_systems_run_side_by_side_in_one_loop() -> None:
    one_store, two_store = BankStore(), BankStore()
    async with ActorSystem(one_store, handlers=[]) as one, ActorSystem(two_store, handlers=[]) as two:
        assert await one.aggregate(Account, "alice").ask(Credit(amount=1)) == 1
        assert await two.aggregate(Account, "alice").ask(Credit(amount=10)) == 10
        await one.stop()
        assert await two.aggregate(Account, "alice").ask(Credit(amount=1)) == 11
    assert (len(one_store.records), len(two_store.records)) == (1, 2)


# --- what it serves ---


async def test_only_given_aggregates_are_served() -> None:
    class Other(AggregateRoot):
        pass

    async with ActorSystem(BankStore(), aggregates=[Account], handlers=[]) as system:
        system.aggregate(Account, "alice")
        with pytest.raises(UnknownAggregateType, match="Other"):
            system.aggregate(Other, "o")


async def test_without_the_argument_every_aggregate_is_served() -> None:
    async with ActorSystem(BankStore(), handlers=[]) as system:
        assert await system.aggregate(Account, "alice").ask(Balance()) == 0


def test_two_classes_of_one_type_name_are_refused_and_both_are_named() -> None:
    class Account_:  # noqa: N801 - a name space
        class Account(AggregateRoot):
            pass

    with pytest.raises(UnknownAggregateType, match=r"Account_\.Account.*tests\.bank\.Account"):
        ActorSystem(aggregates=[Account, Account_.Account], handlers=[])
    system = ActorSystem(handlers=[])
    system.aggregate(Account, "alice")
    with pytest.raises(UnknownAggregateType):
        system.aggregate(Account_.Account, "alice")


def test_a_class_that_is_defined_again_replaces_itself() -> None:
    def define() -> type[AggregateRoot]:
        class Again(AggregateRoot):
            pass

        return Again

    system = ActorSystem(handlers=[])
    system.aggregate(define(), "a")
    system.aggregate(define(), "a")


async def test_without_the_argument_every_subscribed_handler_is_served() -> None:
    seen: list[int] = []

    @subscribe(event_type=Credited, name="before")
    async def before(event: Credited) -> None:
        seen.append(event.amount)

    store = BankStore()
    system = ActorSystem(store)

    @subscribe(event_type=Credited, name="after")
    async def after(event: Credited) -> None:
        raise AssertionError("subscribed too late")

    async with system:
        await store.append(*credited(1))
        await system.settled()
        assert list(system.statistics().handlers) == ["before"]
    assert seen == [1]


# --- causality ---


async def test_commands_sent_in_handlers_name_the_event_as_their_cause() -> None:
    store = BankStore()

    @subscribe(event_type=Credited, name="async")
    async def interest(event: Credited, context: HandlerContext) -> None:
        if event.aggregate_id == "alice":
            await context.system.aggregate(Account, "async").ask(Credit(amount=1))

    @subscribe(event_type=Credited, name="plain")
    def fee(event: Credited, context: HandlerContext) -> None:
        if event.aggregate_id == "alice":
            context.system.aggregate(Account, "plain").ask(Credit(amount=1)).get(timeout=10)

    async with ActorSystem(store, handlers=[interest, fee]) as system:
        command = Credit(amount=10)
        await system.aggregate(Account, "alice").ask(command)
        await system.settled()
    (first,) = await store.get_events("alice")
    assert first.causation_id == command.command_id
    assert first.correlation_id not in (None, command.command_id), "its own"
    for name in ("async", "plain"):
        (second,) = await store.get_events(name)
        assert second.correlation_id == first.correlation_id, "common to all that follows"
        assert second.causation_id not in (command.command_id, first.event_id), "its own command"


async def test_commands_of_a_handler_take_both_ids_from_the_event_and_explicit_ones_win() -> None:
    store, seen = BankStore(), []

    class Remember(Command[None]):
        pass

    class Memory(AggregateRoot):
        @handles
        def remember(self, command: Remember) -> None:
            seen.append((command.correlation_id, command.causation_id))

    @subscribe(event_type=Credited, name="h")
    async def handler(event: Credited, context: HandlerContext) -> None:
        memory = context.system.aggregate(Memory, "m")
        await memory.ask(Remember())
        await memory.ask(Remember(correlation_id="mine"))
        await memory.ask(Remember(correlation_id="mine", causation_id="too"))
        memory.tell(Remember())

    (event,) = credited(1)
    async with ActorSystem(store, handlers=[handler]) as system:
        await store.append(event)
        await system.settled()
        await system.aggregate(Memory, "m").ask(Remember())
    id_ = event.event_id
    assert seen == [(id_, id_), ("mine", id_), ("mine", "too"), (id_, id_), (None, None)]


# --- starting ---


async def test_a_store_that_cannot_be_opened_fails_the_start() -> None:
    with pytest.raises(InvalidStoreUrl, match="nosuch"):
        async with ActorSystem("nosuch:thing", handlers=[]):
            raise AssertionError("never reached")


async def test_a_start_that_fails_leaves_nothing_running() -> None:
    store, clock, seen = BankStore(), ManualClock(), []
    await store.append(*credited(*range(2000)))
    threads = set(threading.enumerate())

    @subscribe(name="reader", start="earliest")
    async def reader(event: Credited) -> None:
        await asyncio.sleep(0)
        seen.append(event.amount)

    class Refuses(EventHandler[Credited]):
        def __init__(self) -> None:
            super().__init__(Credited)
            if system is not None:
                raise ValueError("not today")

    system: ActorSystem | None = None
    supervisors = [Supervisor("one", [reader]), Supervisor("two", [Refuses])]
    system = ActorSystem(store, handlers=[], supervisors=supervisors, clock=clock)
    with pytest.raises(ValueError, match="not today"):
        await system.start()
    await turns()
    seen_then = len(seen)
    assert seen_then < 2000
    await turns(50)
    clock.advance(100)
    await turns(50)
    assert len(seen) == seen_then, "no handler goes on"
    assert clock.pending() == 0
    await until(lambda: not set(threading.enumerate()) - threads)
    assert repr(system) == "<ActorSystem system (stopped)>"
    with pytest.raises(SystemNotRunning):
        system.statistics()
    await system.stop()


async def test_a_store_opened_for_a_start_that_fails_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ThreadStore()
    monkeypatch.setattr("uno_actors.system.system.open_store", lambda *_: store)

    async def fail(*_: object) -> int:
        raise StoreUnavailable("memory:", "for a test")

    monkeypatch.setattr(store, "last_position", fail)
    with pytest.raises(StoreUnavailable):
        await ActorSystem("memory:", handlers=[]).start()
    assert store.closed == 1


async def test_a_store_opened_from_a_url_is_closed_at_the_end() -> None:
    system = ActorSystem("memory:", handlers=[])
    with pytest.raises(SystemNotRunning):
        _ = system.store
    async with system:
        await system.store.last_position()
    with pytest.raises(StoreUnavailable):
        await system.store.last_position()


# --- stopping ---


async def test_stopping_handles_and_records_accepted_commands_and_lets_handlers_finish() -> None:
    store, seen = BankStore(), []

    @subscribe(event_type=Credited, name="h", priority=EventPriority.LOW)
    async def handler(event: Credited) -> None:
        await asyncio.sleep(0)
        seen.append(event.amount)

    async with ActorSystem(store, handlers=[handler]) as system:
        for number in range(100):
            system.aggregate(Account, f"account-{number % 7}").tell(Credit(amount=number))
    assert len(store.records) == 100
    assert sorted(seen) == list(range(100))
    assert await store.checkpoints() == {"h": 100}


async def test_stopping_waits_for_work_that_handlers_started() -> None:
    store = BankStore()

    @subscribe(event_type=Credited, name="chain")
    async def chain(event: Credited, context: HandlerContext) -> None:
        if event.amount > 0:
            context.system.aggregate(Account, "chain").tell(Credit(amount=event.amount - 1))

    async with ActorSystem(store, handlers=[chain]):
        await store.append(*credited(10))
    assert len(store.records) == 11


async def test_stop_is_idempotent_and_may_be_called_at_once_from_many_tasks() -> None:
    store = BankStore()
    async with ActorSystem(store, handlers=[]) as system:
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
        stops = [asyncio.ensure_future(system.stop()) for _ in range(3)]
        await turns()
        assert not any(stop.done() for stop in stops)
        store.gate.set()
        await asyncio.gather(*stops)
        assert await reply == 1
        await system.stop()


async def test_a_cancelled_stop_continues() -> None:
    store = BankStore()
    async with ActorSystem(store, handlers=[]) as system:
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
        stop = asyncio.ensure_future(system.stop())
        await turns()
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        store.gate.set()
        await until(lambda: repr(system) == "<ActorSystem system (stopped)>")
        assert await reply == 1


@pytest.mark.parametrize("kind", ["async", "plain", "defiant"])
async def test_a_stuck_handler_does_not_delay_the_stop_beyond_its_timeout(kind: str) -> None:
    store, begun, never = BankStore(), threading.Event(), threading.Event()
    end = asyncio.Event()

    async def stuck(event: DomainEvent) -> None:
        begun.set()
        await end.wait()

    def stuck_plain(event: DomainEvent) -> None:
        begun.set()
        never.wait()

    async def defiant(event: DomainEvent) -> None:
        begun.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    target: Any = {"async": stuck, "plain": stuck_plain, "defiant": defiant}[kind]
    async with ActorSystem(store, handlers=[HandlerSpec("stuck", target)], stop_timeout=0.05) as system:
        await store.append(*credited(1, 2))
        await until(begun.is_set)
    assert repr(system) == "<ActorSystem system (stopped)>"
    assert await store.checkpoints() == {"stuck": 0}, "what is not done is not counted as done"
    end.set()
    never.set()
    await turns()
    assert await store.checkpoints() == {"stuck": 0}


def test_a_synchronous_program_ends_although_handlers_and_actors_are_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.actors.loop_thread.CANCEL_SECONDS", 0.01)
    store, never, begun = ThreadStore(), threading.Event(), threading.Barrier(3)

    def stuck(event: DomainEvent) -> None:
        begun.wait()
        never.wait()

    class Stuck(Actor):
        def on_receive(self, message: Any) -> None:
            begun.wait()
            never.wait()

    with ActorSystem(store, handlers=[HandlerSpec("stuck", stuck)], stop_timeout=0.05) as system:
        system.aggregate(Account, "alice").ask(Credit(amount=1)).get(timeout=10)
        actor = system.spawn(Stuck).get(timeout=10)
        reply = actor.ask("anything")
        begun.wait()
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=10)
    never.set()


def test_no_ask_of_a_synchronous_program_outlives_its_system() -> None:
    class HangingStore(ThreadStore):
        async def commit(self, requests: Any) -> Any:
            await asyncio.Event().wait()

    with ActorSystem(HangingStore(), handlers=[], stop_timeout=0.05) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
    with pytest.raises(OutcomeUnknown):
        reply.get(timeout=10)


async def test_a_store_that_fails_at_the_end_does_not_keep_the_system_from_stopping() -> None:
    store = BankStore()
    async with ActorSystem(store, handlers=[HandlerSpec("h", lambda event: None)]) as system:
        await store.append(*credited(1))
        await system.settled()
        store.save_errors.extend([StoreUnavailable("memory:", "away")] * 5)
    assert repr(system) == "<ActorSystem system (stopped)>"


async def test_spawned_actors_are_stopped_with_the_system() -> None:
    log: list[str] = []

    class Greeter(Actor):
        async def on_stop(self) -> None:
            log.append("stopped")

    async with ActorSystem(BankStore(), handlers=[]) as system:
        ref = await system.spawn(Greeter)
        gone = await system.spawn(Greeter)
        await gone.stop(block=False)
    assert log == ["stopped", "stopped"]
    assert not ref.is_alive()


# --- statistics and settling ---


async def test_statistics_report_what_was_done() -> None:
    store = BankStore()
    await store.append(*credited(1, 2, aggregate_id="alice"))

    @subscribe(event_type=Debited, name="h")
    async def handler(event: Debited) -> None: ...

    async with ActorSystem(store, handlers=[handler]) as system:
        alice = system.aggregate(Account, "alice")
        await alice.ask(Credit(amount=7))
        await alice.ask(Debit(amount=4))
        with pytest.raises(CommandRejected):
            await alice.ask(Debit(amount=100))
        await system.aggregate(Account, "bob").ask(Balance())
        await system.settled()
        it = system.statistics()
    assert (it.commands, it.rejected, it.failed, it.reruns) == (3, 1, 0, 0)
    assert (it.events_recorded, it.commits) == (2, 2)
    assert (it.activations, it.events_replayed, it.passivations, it.active_aggregates) == (2, 2, 0, 2)
    of_handler = it.handlers["h"]
    assert (of_handler.handled, of_handler.failures, of_handler.position) == (1, 0, 4)
    with pytest.raises(AttributeError):
        it.commands = 5  # type: ignore[misc]


async def test_settled_that_times_out_names_the_handlers_that_lag() -> None:
    store, gate = BankStore(), asyncio.Event()

    @subscribe(name="slow")
    async def slow(event: Credited) -> None:
        await gate.wait()

    async with ActorSystem(store, handlers=[slow, HandlerSpec("quick", lambda event: None)]) as system:
        await store.append(*credited(1, 2))
        await until(lambda: system.statistics().handlers["quick"].position == 2)
        with pytest.raises(
            TimeoutError, match=r"not settled within 0\.05 s: all commands are answered"
        ) as caught:
            await system.settled(timeout=0.05)
        assert "the log ends at 2; slow is live at 0" in str(caught.value)
        assert "quick" not in str(caught.value)
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))
        with pytest.raises(TimeoutError, match="commands are not answered yet"):
            await system.settled(timeout=0.05)
        gate.set()
        store.gate.set()
        await system.settled()
        assert await reply == 1


async def test_ten_thousand_active_aggregates_need_no_more_threads() -> None:
    async with ActorSystem(BankStore(), handlers=[]) as system:
        await system.aggregate(Account, "first").ask(Credit(amount=1))
        before = set(threading.enumerate())
        replies = [system.aggregate(Account, f"account-{n}").ask(Credit(amount=n)) for n in range(10_000)]
        assert [await reply for reply in replies] == list(range(10_000))
        assert system.statistics().active_aggregates == 10_001
        assert set(threading.enumerate()) <= before
        assert system.statistics().commits < 1000, "in groups"


async def test_supervisors_of_one_system_restart_their_own_handlers_only() -> None:
    store = BankStore()

    def failing(event: Credited) -> None:
        if event.amount == 1:
            raise ValueError("once")

    at_once = Backoff(initial=0, max=0)
    supervisors = [
        Supervisor("one", [HandlerSpec("a", failing, max_attempts=1)], backoff=at_once),
        Supervisor("two", [HandlerSpec("b", lambda event: None)], backoff=at_once),
    ]
    async with ActorSystem(store, handlers=[], supervisors=supervisors) as system:
        await store.append(*credited(1, 2))
        await system.settled()
        handlers = system.statistics().handlers
    assert (handlers["a"].restarts, handlers["b"].restarts) == (1, 0)
    assert (handlers["a"].handled, handlers["b"].handled) == (1, 2)


# --- what is sent while it starts ---


class Waits(Actor):
    """Starts only when ``condition`` holds: until then the system is starting."""

    def __init__(self, condition: Callable[[], object]) -> None:
        super().__init__()
        self.condition = condition

    async def on_start(self) -> None:
        await until(self.condition)


async def test_a_command_sent_by_a_handler_while_the_system_starts_is_done_and_seen_by_other_handlers() -> (
    None
):
    store = BankStore()
    await store.append(Debited(amount=1), Debited(amount=2))
    seen: list[int] = []

    @subscribe(name="refunds", start="earliest")
    async def refund(event: Debited, context: HandlerContext) -> None:
        await context.system.aggregate(Account, "alice").ask(Credit(amount=event.amount))

    @subscribe(name="observer")
    async def observe(event: Credited) -> None:
        seen.append(event.amount)

    def is_over() -> bool:
        return len(seen) == 2 or bool(system.statistics().handlers["refunds"].failures)

    supervisors = [
        Supervisor("quick", [refund, observe]),
        Supervisor("slow", [ChildSpec(Waits, "slow", (is_over,))]),
    ]
    system = ActorSystem(store, aggregates=[Account], handlers=[], supervisors=supervisors)
    async with system:
        assert seen == [1, 2]
        assert system.statistics().handlers["refunds"].failures == 0
        await system.settled()
    assert await store.dead_letters() == []
    assert seen == [1, 2], "each once"


async def test_an_actor_may_use_the_system_while_it_starts() -> None:
    found: list[object] = []

    class Uses(Actor):
        async def on_start(self) -> None:
            found.append(await system.aggregate(Account, "alice").ask(Credit(amount=5)))
            helper = await system.spawn(Actor, name="helper")
            found.append(system.actor("helper") == helper)
            with pytest.raises(SystemNotRunning, match="is starting"):  # it would wait for this very start
                await system.settled()

    supervisor = Supervisor("actors", [Uses])
    system = ActorSystem(BankStore(), aggregates=[Account], handlers=[], supervisors=[supervisor])
    async with system:
        assert found == [5, True]


async def test_a_handler_that_is_not_started_yet_does_not_delay_those_of_lower_priority() -> None:
    store, seen = BankStore(), []

    @subscribe(name="early", priority=EventPriority.LOW)
    async def early(event: Credited) -> None:
        seen.append("early")

    @subscribe(name="late", priority=EventPriority.HIGH)
    async def late(event: Credited) -> None:
        seen.append("late")

    class Credits(Waits):
        async def on_start(self) -> None:
            await store.append(*credited(1))
            await super().on_start()

    supervisors = [
        Supervisor("first", [early]),
        Supervisor("slow", [ChildSpec(Credits, "slow", (lambda: seen,))]),
        Supervisor("last", [late]),
    ]
    async with ActorSystem(store, handlers=[], supervisors=supervisors) as system:
        assert seen[0] == "early"
        await system.settled()
    assert seen == ["early", "late"]


async def test_a_handler_with_nothing_to_read_is_live_when_the_system_has_started() -> None:
    store = BankStore()
    await store.append(*credited(1, 2))

    @subscribe(name="latest")
    async def latest(event: Credited) -> None: ...

    async with ActorSystem(store, handlers=[latest]) as system:
        assert system.statistics().handlers["latest"].state == "live"
