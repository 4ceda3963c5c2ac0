"""Actors beside those of pykka, and beside the least that an actor costs."""

import asyncio
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import pykka

from tests.benchmarks.measuring import Measured, in_turn, on_a_thread, rate
from uno_actors import (
    Actor,
    ActorSystem,
)
from uno_actors.actors.mailbox import MailboxPolicy


class OurActor(Actor):
    mailbox = MailboxPolicy(capacity=1_000_000)

    async def on_receive(self, message: Any) -> Any:
        return message


class OurPlainActor(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class PykkaActor(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


class FloorActor:
    """What an actor costs at least: a deque, and a bare coroutine that takes messages from it in turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox: deque[tuple[Any, asyncio.Future[Any] | None]] = deque()
        self._wake = self._loop.create_future()
        self._task = self._loop.create_task(self._run())

    async def on_receive(self, message: Any) -> Any:
        return message

    def tell(self, message: Any, reply_to: asyncio.Future[Any] | None = None) -> None:
        self._mailbox.append((message, reply_to))
        if not self._wake.done():
            self._wake.set_result(None)

    def ask(self, message: Any) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.tell(message, reply)
        return reply

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._wake
            while self._mailbox:
                message, reply_to = self._mailbox.popleft()
                answer = await self.on_receive(message)
                if reply_to is not None and not reply_to.done():
                    reply_to.set_result(answer)
            self._wake = self._loop.create_future()


async def floor_tell(count: int) -> float:
    actor = FloorActor()
    started = time.perf_counter()
    for number in range(count):
        actor.tell(number)
    await actor.ask("last")
    measured = rate(count, started)
    await actor.stop()
    return measured


async def floor_ask(count: int) -> float:
    actor = FloorActor()
    started = time.perf_counter()
    for number in range(count):
        await actor.ask(number)
    measured = rate(count, started)
    await actor.stop()
    return measured


async def floor_spawn_and_stop(count: int) -> float:
    started = time.perf_counter()
    floors = [FloorActor() for _ in range(count)]
    await asyncio.sleep(0)  # each has started
    for floor in floors:
        await floor.stop()
    return rate(count, started)


async def floor_one_to_each(crowd: int) -> float:
    floors = [FloorActor() for _ in range(crowd)]
    started = time.perf_counter()
    for reply in [floor.ask("hello") for floor in floors]:
        await reply
    measured = rate(crowd, started)
    for floor in floors:
        await floor.stop()
    return measured


def floor_asks_of_a_thread(count: int) -> float:
    """A thread that answers another through a queue: two switches of threads for each ask, and nothing else."""
    mailbox: queue.SimpleQueue[Future[int] | None] = queue.SimpleQueue()

    def run() -> None:
        while (reply := mailbox.get()) is not None:
            reply.set_result(0)

    thread = threading.Thread(target=run)
    thread.start()
    started = time.perf_counter()
    for _ in range(count):
        reply: Future[int] = Future()
        mailbox.put(reply)
        reply.result()
    measured = rate(count, started)
    mailbox.put(None)
    thread.join()
    return measured


def floor_asks_of_a_loop(count: int) -> float:
    """A coroutine that answers another thread: the way of ``asyncio.run_coroutine_threadsafe``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def on_receive(message: int) -> int:
        return message

    started = time.perf_counter()
    for number in range(count):
        asyncio.run_coroutine_threadsafe(on_receive(number), loop).result()
    measured = rate(count, started)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    return measured


async def actors(count: int = 20_000) -> list[Measured]:
    async def tell() -> float:
        async with ActorSystem(handlers=[]) as system:
            ref = await system.spawn(OurActor)
            started = time.perf_counter()
            for number in range(count):
                ref.tell(number)
            await ref.ask("last")
            return rate(count, started)

    def their_tell() -> float:
        ref = PykkaActor.start()
        started = time.perf_counter()
        for number in range(count):
            ref.tell(number)
        ref.ask("last")
        return _stopped(rate(count, started))

    async def ask() -> float:
        async with ActorSystem(handlers=[]) as system:
            ref = await system.spawn(OurActor)
            started = time.perf_counter()
            for number in range(count):
                await ref.ask(number)
            return rate(count, started)

    def their_ask() -> float:
        ref = PykkaActor.start()
        started = time.perf_counter()
        for number in range(count // 4):
            ref.ask(number)
        return _stopped(rate(count // 4, started))

    def asks_from_a_thread(kind: type[Actor]) -> float:
        with ActorSystem(handlers=[]) as system:
            ref = system.spawn(kind).get()
            started = time.perf_counter()
            for number in range(count // 4):
                ref.ask(number).get()
            return rate(count // 4, started)

    some = count // 4
    tells = await in_turn(tell, on_a_thread(their_tell), partial(floor_tell, count), rounds=5)
    asks = await in_turn(ask, on_a_thread(their_ask), partial(floor_ask, count), rounds=5)
    plain = await in_turn(
        on_a_thread(partial(asks_from_a_thread, OurPlainActor)),
        on_a_thread(their_ask),
        on_a_thread(partial(floor_asks_of_a_thread, some)),
        rounds=5,
    )
    coroutine = await in_turn(
        on_a_thread(partial(asks_from_a_thread, OurActor)),
        on_a_thread(their_ask),
        on_a_thread(partial(floor_asks_of_a_loop, some)),
        rounds=5,
    )
    return [
        Measured("tell/s, one actor", tells[0], "pykka.ThreadingActor", tells[1], 5),
        Measured("tell/s, one actor", tells[0], "a deque and a bare coroutine", tells[2], 0.25),
        Measured("ask/s from async code, one client", asks[0], "pykka's blocking ask", asks[1], 3),
        Measured(
            "ask/s from async code, one client", asks[0], "an asyncio mailbox and a future", asks[2], 0.7
        ),
        Measured("ask/s from a thread, plain function", plain[0], "pykka's blocking ask", plain[1], 1),
        Measured("ask/s from a thread, plain function", plain[0], "a queue and a thread", plain[2]),
        Measured("ask/s from a thread, coroutine", coroutine[0], "pykka's blocking ask", coroutine[1], 1),
        Measured("ask/s from a thread, coroutine", coroutine[0], "run_coroutine_threadsafe", coroutine[2]),
    ]


async def many(count: int = 10_000, crowd: int = 20_000) -> list[Measured]:
    async def spawn_and_stop() -> float:
        async with ActorSystem(handlers=[]) as system:
            started = time.perf_counter()
            refs = [await system.spawn(OurActor) for _ in range(count)]
            for stopped in [ref.stop(block=False) for ref in refs]:
                await stopped
            return rate(count, started)

    def their_spawn_and_stop() -> float:
        started = time.perf_counter()
        refs = [PykkaActor.start() for _ in range(count)]
        for stopped in [ref.stop(block=False) for ref in refs]:
            stopped.get()
        return rate(count, started)

    async def one_to_each() -> float:
        async with ActorSystem(handlers=[]) as system:
            refs = [await system.spawn(OurActor) for _ in range(crowd)]
            started = time.perf_counter()
            for reply in [ref.ask("hello") for ref in refs]:
                await reply
            return rate(crowd, started)

    def their_one_to_each() -> float:
        refs = [PykkaActor.start() for _ in range(crowd)]
        started = time.perf_counter()
        for reply in [ref.ask("hello", block=False) for ref in refs]:
            reply.get()
        return _stopped(rate(crowd, started))

    spawned = await in_turn(
        spawn_and_stop, on_a_thread(their_spawn_and_stop), partial(floor_spawn_and_stop, count), rounds=1
    )
    greeted = await in_turn(
        one_to_each, on_a_thread(their_one_to_each), partial(floor_one_to_each, crowd), rounds=1
    )
    spawning, greeting = f"spawn and stop/s of {count:,}", f"one ask to each of {crowd:,}, per second"
    return [
        Measured(spawning, spawned[0], "pykka.ThreadingActor", spawned[1], 50),
        Measured(spawning, spawned[0], "a deque and a bare coroutine", spawned[2]),
        Measured(greeting, greeted[0], "pykka.ThreadingActor", greeted[1], 50),
        Measured(greeting, greeted[0], "a deque and a bare coroutine", greeted[2]),
    ]


def _stopped(measured: float) -> float:
    pykka.ActorRegistry.stop_all()
    return measured
