"""Actors with their own threads, including pykka's."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pykka
import pytest

from tests.waiting import until
from uno_actors import Actor, ActorRef, ActorSystem, AskTimeout, MailboxFull, MailboxPolicy, Terminated


class OfPykka(pykka.ThreadingActor):
    """An actor as users of pykka write it."""

    def __init__(self, greeting: str = "hello") -> None:
        super().__init__()
        self.greeting = greeting
        self.log: list[Any] = []

    def on_start(self) -> None:
        self.log.append(("start", threading.get_ident()))

    def on_stop(self) -> None:
        self.log.append(("stop", threading.get_ident()))

    def on_receive(self, message: Any) -> Any:
        self.log.append((message, threading.get_ident()))
        if isinstance(message, BaseException):
            raise message
        return f"{self.greeting} {message}"

    def greet(self, who: str) -> str:
        return f"{self.greeting} {who}"


class Ours(Actor):
    mailbox = MailboxPolicy(capacity=2)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, threading.Event):
            message.wait(20)
        return threading.get_ident()


class Async(Actor):
    async def on_receive(self, message: Any) -> None: ...


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with ActorSystem(handlers=[], aggregates=[], stop_timeout=2) as running:
        yield running


async def test_a_threading_actor_of_pykka_runs_beside_the_others(system: ActorSystem) -> None:
    ref = await system.spawn(OfPykka, "good day", name="old", dispatcher="thread")
    assert isinstance(ref, ActorRef)
    assert await ref.ask("you") == "good day you"
    assert await ref.proxy().greet("everybody") == "good day everybody"
    assert system.actor("old") is ref
    with pytest.raises(ValueError, match="bad"):
        await ref.ask(ValueError("bad"))
    log = await ref.proxy().log
    assert await ref.stop(block=False)
    assert [entry for entry, _ in log][:2] == ["start", "you"]
    assert not ref.is_alive()


async def test_all_of_its_functions_run_on_one_thread_that_ends_with_it(system: ActorSystem) -> None:
    ref = await system.spawn(Ours, dispatcher="thread")
    shared = await system.spawn(Ours)
    idents = {await ref.ask("?") for _ in range(20)}
    (ident,) = idents
    assert await shared.ask("?") != ident
    (thread,) = [thread for thread in threading.enumerate() if thread.ident == ident]
    assert thread.name.startswith("uno-Ours")
    await ref.stop(block=False)
    await until(lambda: not thread.is_alive())


async def test_it_has_all_features_of_other_actors(system: ActorSystem) -> None:
    """A bounded mailbox, timeouts of asks, death watch, statistics."""

    class Watches(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[Any] = []

        async def on_receive(self, message: Any) -> Any:
            if isinstance(message, ActorRef):
                self.watch(message)
            self.heard.append(message)
            return self.heard

    ref, watches = await system.spawn(Ours, dispatcher="thread"), await system.spawn(Watches)
    await watches.ask(ref)
    gate = threading.Event()
    ref.tell(gate)
    await until(lambda: ref.statistics().state == "handling")
    assert "in on_receive" in ref.statistics().doing
    waiting = [ref.ask(number) for number in range(2)]
    with pytest.raises(MailboxFull):
        await ref.ask("too much")
    with pytest.raises(AskTimeout, match="place 2 of 2"):
        await asyncio.wait_for(_timed(ref, waiting[1]), 5)
    gate.set()
    assert await waiting[0] > 0
    await ref.stop(block=False)
    while Terminated(ref) not in await watches.ask("and?"):  # noqa: ASYNC110 - it arrives soon after the reply
        await asyncio.sleep(0)


async def _timed(ref: ActorRef[Any], reply: Any) -> Any:
    reply.deadline = 0.0
    return await reply


async def test_an_actor_that_blocks_its_own_thread_takes_no_worker_from_others(system: ActorSystem) -> None:
    gate = threading.Event()
    refs = [await system.spawn(Ours, dispatcher="thread") for _ in range(40)]
    for ref in refs:
        ref.tell(gate)
    assert await (await system.spawn(Ours)).ask("?") > 0
    gate.set()
    for ref in refs:
        assert await ref.ask("?") > 0


async def test_an_actor_that_cannot_run_there_says_why(system: ActorSystem) -> None:
    with pytest.raises(
        TypeError, match="OfPykka is an actor of pykka's threads: spawn it with dispatcher='thread'"
    ):
        system.spawn(OfPykka)
    with pytest.raises(ValueError, match="Async handles its messages in a coroutine.*needs no thread"):
        system.spawn(Async, dispatcher="thread")
    with pytest.raises(ValueError, match="dispatcher must be 'shared' or 'thread'; found 'mine'"):
        system.spawn(Ours, dispatcher="mine")  # type: ignore[arg-type]
    assert system.statistics().actors == 1, "the supervisor of handlers alone"


async def test_the_stop_of_the_system_stops_it(caplog: pytest.LogCaptureFixture) -> None:
    async with ActorSystem(handlers=[], stop_timeout=2) as system:
        ref = await system.spawn(OfPykka, dispatcher="thread")
        log = await ref.proxy().log
    assert not ref.is_alive()
    assert "abandoned" not in caplog.text
    (started, thread), (stopped, same_thread) = log
    assert (started, stopped) == ("start", "stop")
    assert thread == same_thread
