"""Actors: pykka's programming model on an event loop and worker threads."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope

from tests.machine import patience
from tests.waiting import turns, until
from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AskTimeout,
    BlockingCallOnLoop,
    ExitRaised,
    Future,
    MailboxFull,
    WorkCancelled,
)
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.mailbox import MailboxPolicy
from uno_actors.actors.signals import Failure

Log = list[Any]


class AsyncGreeter(Actor):
    """All hooks and methods are coroutine functions."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.name = "async"

    async def on_start(self) -> None:
        await asyncio.sleep(0)
        self.log.append("start")

    async def on_stop(self) -> None:
        await asyncio.sleep(0)
        self.log.append("stop")

    async def on_failure(self, kind: Any, value: Any, traceback: Any) -> None:
        self.log.append(("failure", kind, value.args, traceback is not None))

    async def on_receive(self, message: Any) -> Any:
        await asyncio.sleep(0)
        self.log.append(message)
        if isinstance(message, BaseException):
            raise message
        return ("got", message)

    async def greet(self, who: str, *, loudly: bool = False) -> str:
        await asyncio.sleep(0)
        return f"HELLO {who}" if loudly else f"hello {who}"


class PlainGreeter(Actor):
    """All hooks and methods are plain functions."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.name = "plain"

    def on_start(self) -> None:
        self.log.append("start")

    def on_stop(self) -> None:
        self.log.append("stop")

    def on_failure(self, kind: Any, value: Any, traceback: Any) -> None:
        self.log.append(("failure", kind, value.args, traceback is not None))

    def on_receive(self, message: Any) -> Any:
        self.log.append(message)
        if isinstance(message, BaseException):
            raise message
        return ("got", message)

    def greet(self, who: str, *, loudly: bool = False) -> str:
        return f"HELLO {who}" if loudly else f"hello {who}"


class MixedGreeter(PlainGreeter):
    """Receives on a worker, starts and greets on the loop."""

    async def on_start(self) -> None:
        self.log.append("start")

    async def greet(self, who: str, *, loudly: bool = False) -> str:
        await asyncio.sleep(0)
        return f"HELLO {who}" if loudly else f"hello {who}"


class AsyncWithPlainMethods(AsyncGreeter):
    """Receives on the loop, stops and greets on a worker."""

    def on_stop(self) -> None:
        self.log.append("stop")

    def greet(self, who: str, *, loudly: bool = False) -> str:
        return f"HELLO {who}" if loudly else f"hello {who}"


GREETERS = [AsyncGreeter, PlainGreeter, MixedGreeter, AsyncWithPlainMethods]
Greeter = type[AsyncGreeter] | type[PlainGreeter]


@pytest.fixture(params=GREETERS)
def greeter(request: pytest.FixtureRequest) -> Greeter:
    return request.param


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with ActorSystem(handlers=[], aggregates=[], stop_timeout=2) as running:
        yield running


@pytest.fixture(autouse=True)
def no_actor_left() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(timeout=5)


# --- in a system ---


async def test_spawn_replies_after_on_start_has_succeeded(system: ActorSystem, greeter: Greeter) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    assert log == ["start"]
    assert isinstance(ref, ActorRef)
    assert ref.is_alive()


async def test_spawn_replies_with_the_error_of_on_start(system: ActorSystem) -> None:
    class Refuses(Actor):
        async def on_start(self) -> None:
            raise ValueError("not today")

    class RefusesOnWorker(Actor):
        def on_start(self) -> None:
            raise SystemExit(1)

    with pytest.raises(ValueError, match="not today"):
        await system.spawn(Refuses)
    with pytest.raises(ExitRaised, match="SystemExit: 1"):
        await system.spawn(RefusesOnWorker)


async def test_ask_returns_a_future_with_the_reply(system: ActorSystem, greeter: Greeter) -> None:
    ref = await system.spawn(greeter, [])
    future = ref.ask("hi")
    assert isinstance(future, Future)
    assert await future == ("got", "hi")


async def test_tell_returns_at_once_and_the_message_is_handled(system: ActorSystem, greeter: Greeter) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    ref.tell("hi")
    assert "hi" not in log or greeter in (PlainGreeter, MixedGreeter)
    await until(lambda: "hi" in log)


async def test_messages_are_handled_in_order(system: ActorSystem, greeter: Greeter) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    for number in range(200):
        ref.tell(number)
    await ref.ask("last")
    assert log == ["start", *range(200), "last"]


async def test_messages_of_many_senders_are_handled_one_at_a_time(system: ActorSystem) -> None:
    class Counter(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.inside = 0
            self.most = 0
            self.handled = 0

    class AsyncCounter(Counter):
        async def on_receive(self, message: Any) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
            self.handled += 1

    class PlainCounter(Counter):
        def on_receive(self, message: Any) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.00001)  # gives other threads their turn
            self.inside -= 1
            self.handled += 1

    for kind in (AsyncCounter, PlainCounter):
        ref = await system.spawn(kind)

        def send(ref: Any = ref) -> None:
            for _ in range(100):
                ref.tell("go")

        await asyncio.gather(*(asyncio.to_thread(send) for _ in range(4)))
        proxy = ref.proxy()
        await until(ref.actor_inbox.empty)
        assert await proxy.handled == 400
        assert await proxy.most == 1


async def test_coroutine_functions_run_on_the_loop_and_plain_ones_on_a_worker(system: ActorSystem) -> None:
    """Coroutine functions on the loop's thread, plain ones on a worker."""

    class Where(Actor):
        async def on_receive(self, message: Any) -> str:
            return threading.current_thread().name

        def plain(self) -> str:
            return threading.current_thread().name

    class WherePlain(Actor):
        def on_receive(self, message: Any) -> str:
            return threading.current_thread().name

        async def coroutine(self) -> str:
            return threading.current_thread().name

    here = threading.current_thread().name
    one, two = await system.spawn(Where), await system.spawn(WherePlain)
    assert await one.ask("?") == here
    assert (await one.proxy().plain()).startswith("uno-worker")
    assert (await two.ask("?")).startswith("uno-worker")
    assert await two.proxy().coroutine() == here


async def test_proxies_call_methods_and_get_and_set_attributes(system: ActorSystem, greeter: Greeter) -> None:
    proxy = (await system.spawn(greeter, [])).proxy()
    assert await proxy.greet("world") == "hello world"
    assert await proxy.greet("world", loudly=True) == "HELLO world"
    before = await proxy.name
    assert before in ("async", "plain")
    proxy.name = "renamed"
    assert await proxy.name == "renamed"


async def test_a_plain_function_that_returns_a_coroutine_is_awaited(system: ActorSystem) -> None:
    """As a decorator does that wraps a coroutine function in a plain one."""

    async def answer() -> int:
        return 42

    class OnLoop(Actor):
        async def on_receive(self, message: Any) -> None: ...

        def wrapped(self) -> Any:
            return answer()

    class OnWorker(Actor):
        def on_receive(self, message: Any) -> Any:
            return answer()

    assert await (await system.spawn(OnLoop)).proxy().wrapped() == 42
    assert await (await system.spawn(OnWorker)).ask("?") == 42


async def test_an_error_goes_to_the_caller_and_the_actor_stays_alive(
    system: ActorSystem, greeter: Greeter
) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    with pytest.raises(ValueError, match="bad"):
        await ref.ask(ValueError("bad"))
    assert await ref.ask("again") == ("got", "again")
    assert not [entry for entry in log if isinstance(entry, tuple)], "on_failure is for messages told"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("mine")])
async def test_even_system_exit_is_the_actors_own_failure(
    system: ActorSystem, greeter: Greeter, error: BaseException
) -> None:
    ref = await system.spawn(greeter, [])
    with pytest.raises(WorkCancelled if isinstance(error, asyncio.CancelledError) else ExitRaised) as raised:
        await ref.ask(error)
    assert raised.value.__cause__ is error
    assert await ref.ask("still here") == ("got", "still here")


async def test_system_exit_in_a_coroutine_method_of_a_plain_actor_ends_neither_loop_nor_actor(
    system: ActorSystem,
) -> None:
    class Exits(Actor):
        def on_receive(self, message: Any) -> str:
            return "still here"

        async def leave(self) -> None:
            raise SystemExit(4)

    ref = await system.spawn(Exits)
    with pytest.raises(ExitRaised, match="SystemExit: 4"):
        await ref.proxy().leave()
    assert await ref.ask("?") == "still here"


async def test_stop_iteration_becomes_a_reply_too(system: ActorSystem, greeter: Greeter) -> None:
    ref = await system.spawn(greeter, [])
    with pytest.raises(RuntimeError, match="StopIteration"):
        await ref.ask(StopIteration())
    assert await ref.ask("still here") == ("got", "still here")


async def test_stop_iteration_in_a_plain_method_of_an_actor_on_the_loop_becomes_a_reply(
    system: ActorSystem,
) -> None:
    class Forgets(Actor):
        async def on_receive(self, message: Any) -> None: ...

        def first(self) -> Any:
            return next(iter(()))

    ref = await system.spawn(Forgets)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await ref.proxy().first()


async def test_a_told_message_that_fails_stops_the_actor_as_in_pykka(
    system: ActorSystem, greeter: Greeter, caplog: pytest.LogCaptureFixture
) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    ref.tell(ValueError("bad"))
    behind = ref.ask("behind it")
    with pytest.raises(pykka.ActorDeadError):
        await behind
    assert not ref.is_alive()
    assert log[-1] == ("failure", ValueError, ("bad",), True)
    assert "stop" not in log, "pykka's on_stop is for actors that were asked to stop"
    assert f"Unhandled exception in {ref}" in caplog.text


async def test_an_error_in_on_failure_and_on_stop_is_logged(
    system: ActorSystem, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Actor):
        async def on_receive(self, message: Any) -> None:
            raise ValueError("first")

        async def on_failure(self, *_: Any) -> None:
            raise ValueError("second")

        def on_stop(self) -> None:
            raise ValueError("third")

    ref = await system.spawn(Clumsy)
    ref.tell("go")
    await until(lambda: "ValueError: second" in caplog.text)
    assert not ref.is_alive()
    other = await system.spawn(Clumsy)
    assert await other.stop(block=False)
    assert "ValueError: third" in caplog.text


async def test_stop_runs_on_stop_after_the_messages_before_it(system: ActorSystem, greeter: Greeter) -> None:
    log: Log = []
    ref = await system.spawn(greeter, log)
    ref.tell("before")
    stopped = ref.stop(block=False)
    after = ref.ask("after")
    assert await stopped
    assert log == ["start", "before", "stop"]
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        await after


async def test_asking_a_dead_actor_is_an_error_at_once(system: ActorSystem, greeter: Greeter) -> None:
    ref = await system.spawn(greeter, [])
    await ref.stop(block=False)
    with pytest.raises(pykka.ActorDeadError):
        await ref.ask("anybody?")
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("anybody?")
    assert not await ref.stop(block=False), "it was stopped before"


async def test_an_actor_that_stops_itself_handles_the_waiting_messages_first(system: ActorSystem) -> None:
    class Fuse(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        async def on_receive(self, message: Any) -> int:
            self.count += 1
            if message == "burn":
                self.stop()
            return self.count

    ref = await system.spawn(Fuse)
    answers = [ref.ask("burn"), ref.ask("?")]
    assert await answers[0] == 1
    assert await answers[1] == 2
    await until(lambda: not ref.is_alive())


async def test_a_full_mailbox_refuses_an_ask_and_the_actor_continues(system: ActorSystem) -> None:
    class Small(Actor):
        mailbox = MailboxPolicy(capacity=3)

        def __init__(self, gate: asyncio.Event) -> None:
            super().__init__()
            self.gate = gate
            self.begun = asyncio.Event()

        async def on_receive(self, message: Any) -> Any:
            self.begun.set()
            await self.gate.wait()
            return message

    gate = asyncio.Event()
    ref = await system.spawn(Small, gate)
    first = ref.ask(0)
    await until(ref.actor_inbox.empty)
    waiting = [ref.ask(number) for number in (1, 2, 3)]
    with pytest.raises(MailboxFull, match="Small"):
        await ref.ask(4)
    gate.set()
    assert [await future for future in (first, *waiting)] == [0, 1, 2, 3]
    assert await ref.ask(5) == 5


# --- time ---


async def test_an_ask_that_waits_in_the_mailbox_is_withdrawn_when_it_times_out(
    system: ActorSystem,
) -> None:
    log: Log = []
    gate = asyncio.Event()

    class Slow(Actor):
        async def on_receive(self, message: Any) -> Any:
            log.append(message)
            if message == "block":
                await gate.wait()
            return message

    ref = await system.spawn(Slow)
    blocking = ref.ask("block")
    await until(lambda: log)
    in_between = ref.ask("in between")
    with pytest.raises(AskTimeout, match="It was at place 2 of 2 in the mailbox") as caught:
        await ref.ask("too late", timeout=0.001)
    assert not caught.value.started
    with pytest.raises(AskTimeout, match="has been handling str") as caught:
        await _timed_out(blocking, ref, "block", gate)
    assert caught.value.started
    gate.set()
    assert await in_between == "in between"
    assert await ref.ask("last") == "last"
    assert "too late" not in log


async def _timed_out(first: Future[Any], ref: Any, message: str, gate: asyncio.Event) -> None:
    """Let the first message finish, and ask again with a short timeout."""
    gate.set()
    await first
    gate.clear()
    await ref.ask(message, timeout=0.001)


async def test_a_stop_signal_is_not_withdrawn_when_its_caller_has_timed_out() -> None:
    gate = asyncio.Event()

    class Slow(Actor):
        async def on_receive(self, message: Any) -> None:
            await gate.wait()

    async with ActorSystem(handlers=[], ask_timeout=0.001) as system:
        ref = await system.spawn(Slow)
        ref.tell("block")
        with pytest.raises(AskTimeout):
            await ref.stop(block=False)
        gate.set()
        await until(lambda: not ref.is_alive())


async def test_asks_that_timed_out_do_not_keep_the_stop_from_answering_the_others(
    system: ActorSystem,
) -> None:
    gate = asyncio.Event()

    class Slow(Actor):
        async def on_receive(self, message: Any) -> None:
            await gate.wait()
            raise ValueError("fails at last")

    ref = await system.spawn(Slow)
    ref.tell("block")
    with pytest.raises(AskTimeout):
        await ref.ask("too late", timeout=0.001)
    waits = ref.ask("waits")
    gate.set()
    with pytest.raises(pykka.ActorDeadError):
        await waits


async def test_blocking_on_the_loop_is_an_error_that_says_to_await(system: ActorSystem) -> None:
    ref = await system.spawn(AsyncGreeter, [])
    with pytest.raises(BlockingCallOnLoop):
        ref.ask("hi", block=True)
    assert await asyncio.to_thread(lambda: ref.ask("hi", block=True)) == ("got", "hi")


async def test_when_the_system_abandons_an_actor_it_answers_the_ask_in_progress() -> None:
    never, begun = threading.Event(), threading.Event()

    class StuckOnLoop(Actor):
        async def on_receive(self, message: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

    class StuckOnWorker(Actor):
        def on_receive(self, message: Any) -> None:
            begun.set()
            never.wait()

    for kind in (StuckOnLoop, StuckOnWorker):
        begun.clear()
        async with ActorSystem(handlers=[], stop_timeout=0.01) as stops:
            ref = await stops.spawn(kind)
            under_way, waits = ref.ask("begin"), ref.ask("wait")
            await until(begun.is_set)
        for future in (under_way, waits):
            assert future.done()
            with pytest.raises(pykka.ActorDeadError):
                await future
    never.set()


# --- supervised ---


@pytest.fixture
async def dispatcher() -> AsyncIterator[Dispatcher]:
    made = Dispatcher(asyncio.get_running_loop())
    yield made
    made.close()


class Supervised:
    """An actor whose supervisor only records the failures."""

    def __init__(self, kind: Greeter, dispatcher: Dispatcher) -> None:
        self.log: Log = []
        self.failures: list[Failure] = []
        self.cell = ActorCell(
            kind(self.log), dispatcher, factory=lambda: kind(self.log), on_failed=self.failures.append
        )
        self.ref = self.cell.actor.actor_ref
        self.cell.start()

    def ask(self, message: Any) -> Future[Any]:
        return self.ref.ask(message, block=False)  # type: ignore[return-value]  # the process makes our futures


async def test_a_failed_actor_waits_for_its_supervisor_and_keeps_mailbox_and_reference(
    dispatcher: Dispatcher, greeter: Greeter
) -> None:
    it = Supervised(greeter, dispatcher)
    first = it.cell.actor
    it.ref.tell(ValueError("bad"))
    waits = it.ask("behind it")
    await until(lambda: it.failures)
    await turns()
    (failure,) = it.failures
    assert (str(failure.error), failure.while_starting) == ("bad", False)
    assert not waits.done()
    assert it.ref.is_alive()
    it.cell.restart()
    assert await waits == ("got", "behind it")
    assert it.cell.actor is not first
    assert it.cell.restarts == 1
    assert it.cell.actor.actor_ref is it.ref
    assert it.cell.actor.actor_urn == first.actor_urn
    assert it.log.count("start") == 2
    assert it.log[2] == ("failure", ValueError, ("bad",), True)
    await it.cell.stop()
    assert it.log[-1] == "stop"


async def test_an_actor_that_fails_while_starting_is_left_to_its_supervisor_too(
    dispatcher: Dispatcher,
) -> None:
    fail = [True]

    class Starts(Actor):
        def __init__(self, log: Log) -> None:
            super().__init__()
            self.log = log

        async def on_start(self) -> None:
            self.log.append("start")
            if fail:
                raise ValueError("not yet")

        async def on_receive(self, message: Any) -> Any:
            return message

    it = Supervised(Starts, dispatcher)  # type: ignore[arg-type]
    waits = it.ask("hello")
    await until(lambda: it.failures)
    assert it.failures[0].while_starting
    it.cell.restart()
    await until(lambda: len(it.failures) == 2)
    fail.clear()
    it.cell.restart()
    assert await waits == "hello"
    assert it.log == ["start"] * 3
    await it.cell.stop()


async def test_a_supervisor_that_restarts_at_once_from_another_thread_loses_nothing(
    dispatcher: Dispatcher,
) -> None:
    log: Log = []
    cell: ActorCell

    def failed(failure: Failure) -> None:
        dispatcher.post(cell.restart)

    cell = ActorCell(PlainGreeter(log), dispatcher, factory=lambda: PlainGreeter(log), on_failed=failed)
    cell.start()
    ref = cell.actor.actor_ref
    for number in range(100):
        ref.tell(number)
        if number % 5 == 0:
            ref.tell(ValueError(number))
    await ref.ask("last", block=False)
    assert [entry for entry in log if isinstance(entry, int)] == list(range(100))
    assert cell.restarts == 20
    await cell.stop()


async def test_stopping_a_suspended_actor_answers_the_waiting_asks(
    dispatcher: Dispatcher, greeter: Greeter
) -> None:
    it = Supervised(greeter, dispatcher)
    it.ref.tell(ValueError("bad"))
    waits = it.ask("behind it")
    await until(lambda: it.failures)
    await it.cell.stop()
    with pytest.raises(pykka.ActorDeadError):
        await waits
    assert not it.ref.is_alive()


async def test_without_a_factory_there_is_no_restart(dispatcher: Dispatcher) -> None:
    cell = ActorCell(AsyncGreeter([]), dispatcher)
    with pytest.raises(RuntimeError, match="no factory"):
        cell.restart()


async def test_killing_cancels_a_coroutine_and_answers_its_caller(dispatcher: Dispatcher) -> None:
    cancelled = asyncio.Event()

    class Stuck(Actor):
        async def on_receive(self, message: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    cell = ActorCell(Stuck(), dispatcher)
    cell.start()
    ref = cell.actor.actor_ref
    under_way, waits = ref.ask("begin", block=False), ref.ask("wait", block=False)
    await until(lambda: len(cell.actor.actor_inbox) == 1)
    cell.kill()
    for future in (under_way, waits):
        with pytest.raises(pykka.ActorDeadError):
            await future
    await cancelled.wait()
    assert not ref.is_alive()


async def test_an_actor_killed_before_it_starts_never_starts(dispatcher: Dispatcher) -> None:
    log: Log = []
    cell = ActorCell(AsyncGreeter(log), dispatcher)
    cell.start()
    cell.kill()
    await turns()
    assert log == []


# --- as pykka has it ---


@pytest.mark.parametrize("kind", GREETERS)
def test_pykkas_own_start_runs_it_on_a_dispatcher_of_the_process(kind: Greeter) -> None:
    log: Log = []
    ref = kind.start(log)
    assert ref.ask("hi") == ("got", "hi")
    assert ref.ask("later", block=False).get(timeout=5) == ("got", "later")
    assert ref.proxy().greet("you").get(timeout=5) == "hello you"
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is ref
    assert ref.stop()
    assert log == ["start", "hi", "later", "stop"]
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is None


async def test_an_actor_of_pykkas_threads_works_beside_ours(system: ActorSystem) -> None:
    class OnThread(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return threading.current_thread().name

    class Asks(Actor):
        def on_receive(self, message: Any) -> Any:
            return message.ask("who?")

    theirs = OnThread.start()
    ours = await system.spawn(Asks)
    assert "OnThread" in await ours.ask(theirs)
    await asyncio.to_thread(theirs.stop)


def test_actors_need_no_thread_of_their_own() -> None:
    AsyncGreeter.start([]).ask("warm up")
    before = set(threading.enumerate())
    refs = [AsyncGreeter.start([]) for _ in range(200)]
    assert [ref.ask(n) for n, ref in enumerate(refs)] == [("got", n) for n in range(200)]
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_actors_start_in_a_process_that_was_forked_from_one_with_actors() -> None:
    program = """
import os, sys
from uno_actors import Actor

class Echo(Actor):
    def on_receive(self, message):
        return message

Echo.start().ask("parent", timeout=10)
child = os.fork()
if not child:
    os._exit(0 if Echo.start().ask("child", timeout=10) == "child" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=patience(30), check=False).returncode == 0


@pytest.mark.parametrize("wait", [asyncio.sleep, time.sleep])
async def test_a_callback_that_raises_system_exit_does_not_end_the_actor(wait: Any) -> None:
    class Waits(Actor):
        async def on_receive(self, message: Any) -> Any:
            await wait(0.01)

    class WaitsOnAThread(Actor):
        def on_receive(self, message: Any) -> Any:
            wait(0.01)

    def leave(_: Future[Any]) -> None:
        called.append(1)
        raise SystemExit

    called: list[int] = []
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Waits if wait is asyncio.sleep else WaitsOnAThread)
        ref.ask("first").add_done_callback(leave)
        await ref.ask("second", timeout=5)
    assert called == [1]


# --- stash ---


class Door(Actor):
    """Stashes messages that arrive while it is closed."""

    mailbox = MailboxPolicy(capacity=3)

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False

    async def on_receive(self, message: Any) -> Any:
        if message == "open":
            self.is_open = True
            self.unstash_all()
            return "open"
        if not self.is_open:
            self.stash()
            return "not heard by anybody"
        return f"{message} is in"


async def test_stashed_messages_are_handled_and_answered_later_in_order() -> None:
    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(Door)
        early = [door.ask("ann"), door.ask("ben")]
        assert await door.ask("open") == "open"
        assert [await reply for reply in early] == ["ann is in", "ben is in"]
        assert await door.ask("cid") == "cid is in"


async def test_a_stash_has_the_bound_of_the_mailbox() -> None:
    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(Door)
        waiting = []
        for name in ("ann", "ben", "cid"):
            waiting.append(door.ask(name))
            await until(lambda: len(door.actor_inbox) == 0)
        with pytest.raises(MailboxFull, match="its stash"):
            await door.ask("dan")
        await door.ask("open")
        assert [await reply for reply in waiting] == ["ann is in", "ben is in", "cid is in"]


async def test_messages_still_stashed_when_the_actor_stops_are_answered() -> None:
    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(Door)
        early = door.ask("ann")
        door.stop(block=False)
        with pytest.raises(pykka.ActorDeadError):
            await early


async def test_messages_stashed_by_an_idle_actor_are_answered_when_it_stops() -> None:
    """Also by a stop that needs no turn of the actor; told messages become dead messages."""
    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(Door)
        early = door.ask("ann", timeout=5)
        door.tell("ben")
        await until(lambda: door.statistics().stashed == 2)
        assert await door.stop(block=False)
        await until(early.done)
        with pytest.raises(pykka.ActorDeadError):
            await early
        assert [dead.message for dead in system.dead_messages()] == ["ben"]


async def test_a_message_stashed_and_unstashed_at_once_is_answered_when_it_is_handled_again() -> None:
    class OpensItself(Door):
        async def on_receive(self, message: Any) -> Any:
            reply = await super().on_receive(message)
            if not self.is_open:
                await super().on_receive("open")
            return reply

    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(OpensItself)
        assert await door.ask("ann") == "ann is in"


async def test_told_messages_that_are_dropped_can_be_inspected() -> None:
    """By the system that runs the actor, with the reason."""
    async with ActorSystem(handlers=[]) as system:
        door = await system.spawn(Door)
        door.stop(block=False)
        door.actor_inbox.put(Envelope("too late"))
        await until(lambda: not door.is_alive())
        await until(system.dead_messages)
        (dead,) = system.dead_messages()
        assert (dead.message, dead.reason) == ("too late", "actor is dead")
        assert dead.actor.startswith("Door")
        assert system.statistics().dead_messages == 1
