"""Actors and aggregates in random order of start, stop, ask, tell, crash, restart and passivation.

The model is one sentence for each promise: every message ends in exactly one way (7), every ask ends (8), and not
as if the asker itself had been cancelled or were to exit, and whatever happens to one actor, another handles all of
its own messages, in order, one at a time (9). All of this also if the program cancels every task that there is.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pykka
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from tests.faults import supervised_by_the_test
from tests.machine import patience
from tests.waiting import ManualClock, until
from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventRegistry,
    Future,
    OutcomeUnknown,
    WorkCancelled,
    handles,
)
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.signals import Failure

Message = tuple[str, int]

FAULTS: dict[str, type[BaseException]] = {
    "crash": ValueError,
    "exit": SystemExit,
    "cancelled": asyncio.CancelledError,
    "stop": StopIteration,
}


class Life:
    """What a test knows about one actor, across its instances."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.inside = 0
        self.overlaps = 0
        self.while_failed = 0
        self.stuck = False
        self.killed = False
        self.asyncio_gate = asyncio.Event()
        self.thread_gate = threading.Event()
        self.sent: list[int] = []
        self.asked: dict[int, Future[Any]] = {}
        self.refused: set[int] = set()
        self.ref: ActorRef[Any]
        self.cell: ActorCell | None = None
        self.failures: list[Failure] = []

    def open(self) -> None:
        self.asyncio_gate.set()
        self.thread_gate.set()

    @contextlib.contextmanager
    def handling(self, what: str, number: int) -> Iterator[None]:
        self.handled.append(number)
        self.inside += 1
        self.overlaps += self.inside > 1
        self.while_failed += bool(self.failures)
        try:
            yield
        finally:
            self.inside -= 1
        if what in FAULTS:
            raise FAULTS[what]


class OnLoop(Actor):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self.life = life

    async def on_receive(self, message: Message) -> int:
        what, number = message
        with self.life.handling(what, number):
            if what == "wait":
                await self.life.asyncio_gate.wait()
            elif what == "yield":
                await asyncio.sleep(0)
            elif what.startswith("cancels itself"):
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                if "waits" in what:
                    await asyncio.sleep(0)
        return number


class OnWorker(Actor):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self.life = life

    def on_receive(self, message: Message) -> int:
        what, number = message
        with self.life.handling(what, number):
            if what == "wait":
                self.life.thread_gate.wait(20)
        return number


class Tallied(DomainEvent):
    number: int


class Count(Command[int]):
    number: int


class Tally(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.numbers: list[int] = []

    @handles
    def count(self, command: Count) -> int:
        if command.number % 7 == 3:
            raise ValueError("half done")
        self.register_event(Tallied(number=command.number))
        return len(self.numbers)

    def apply_tallied(self, event: Tallied) -> None:
        self.numbers.append(event.number)


def ended_with(reply: Future[Any]) -> Any:
    """The value of a reply that has arrived, or its error, which is neither a cancellation nor an exit."""
    assert reply.done()
    try:
        return reply.get(timeout=0)
    except Exception as error:  # noqa: BLE001 - it is what the model looks at
        return error


class CellHost:
    """The minimal host that a supervised actor needs."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock

    def spawn(self, actor: Any, parent: Any = None) -> Any:
        raise NotImplementedError

    def ended(self, cell: ActorCell) -> None: ...


WHAT = ["", "", "yield", "yield", "wait", *FAULTS, "cancels itself and waits", "cancels itself"]


class LifeMachine(RuleBasedStateMachine):
    lives = Bundle("lives")
    supervised = Bundle("supervised")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.all: list[Life] = []
        self.numbers = iter(range(1_000_000))
        self.counted: dict[str, list[tuple[int, Future[Any]]]] = {}

    @initialize()
    def start(self) -> None:
        async def start() -> ActorSystem:
            system = ActorSystem(
                handlers=[],
                aggregates=[Tally],
                clock=self.clock,
                passivate_after=60,
                ask_timeout=1e6,
                stop_timeout=0.5,
                event_registry=EventRegistry([Tallied]),
            )
            await system.start()
            return system

        self.runner = asyncio.Runner()
        self.system = self.runner.run(start())

    @rule(target=lives, kind=st.sampled_from([OnLoop, OnWorker]), own_thread=st.booleans())
    def spawn(self, kind: Any, own_thread: bool) -> Life:
        async def spawn() -> Life:
            life = Life()
            own = "thread" if own_thread and kind is OnWorker else "shared"
            life.ref = await self.system.spawn(kind, life, dispatcher=own)
            return life

        return self._known(self.runner.run(spawn()))

    @rule(target=supervised, kind=st.sampled_from([OnLoop, OnWorker]))
    def start_supervised(self, kind: Any) -> Any:
        async def start() -> Life:
            life = Life()
            life.ref, life.cell = supervised_by_the_test(
                self.system,
                kind(life),
                factory=lambda: kind(life),
                on_failed=life.failures.append,
                host=CellHost(self.clock),
            )
            life.cell.start()
            return life

        return multiple(self._known(self.runner.run(start())))

    def _known(self, life: Life) -> Life:
        self.all.append(life)
        return life

    @rule(
        life=st.one_of(lives, supervised),
        burst=st.lists(
            st.tuples(st.sampled_from(WHAT), st.booleans()),
            min_size=1,
            max_size=5,
        ),
        awaits=st.booleans(),
    )
    def send(self, life: Life, burst: list[tuple[str, bool]], awaits: bool) -> None:
        async def send() -> None:
            for what, asks in burst:
                self._send(life, what, asks=asks)
            if awaits and life.asyncio_gate.is_set() and life.cell is None:
                with contextlib.suppress(pykka.ActorDeadError):
                    await self._send(life, "", asks=True)

        self.runner.run(send())

    def _send(self, life: Life, what: str, *, asks: bool) -> Any:
        number = next(self.numbers)
        life.sent.append(number)
        if asks:
            life.asked[number] = reply = life.ref.ask((what, number))
            return reply
        try:
            life.ref.tell((what, number))
        except pykka.ActorDeadError:
            life.refused.add(number)
        return None

    @rule(life=st.one_of(lives, supervised))
    def open_gate(self, life: Life) -> None:
        life.open()
        self.turns(3)

    @rule(life=st.one_of(lives, supervised))
    def leave_stuck(self, life: Life) -> None:
        """Its gate is not opened in the end, if it was not before."""
        life.stuck = True

    @rule(life=supervised)
    def restart(self, life: Life) -> None:
        async def restart() -> None:
            if life.failures and life.cell is not None and life.ref.is_alive():
                life.failures.clear()
                life.cell.restart()

        self.runner.run(restart())

    @rule(life=consumes(lives))
    def stop(self, life: Life) -> None:
        self.runner.run(self._stop(life))

    async def _stop(self, life: Life) -> None:
        if life.cell is None:
            life.ref.stop(block=False)
        else:
            life.cell.stop()

    @rule(life=consumes(supervised))
    def kill(self, life: Life) -> None:
        async def kill() -> None:
            assert life.cell is not None
            life.killed = True
            life.cell.kill()

        self.runner.run(kill())

    @rule(count=st.integers(1, 20))
    def turns(self, count: int) -> None:
        async def turns() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.runner.run(turns())

    @rule()
    def cancel_everything(self) -> None:
        async def cancel() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self.runner.run(cancel())

    @rule(tally=st.sampled_from("abc"), number=st.integers(0, 20), awaits=st.booleans())
    def command(self, tally: str, number: int, awaits: bool) -> None:
        async def command() -> None:
            reply = self.system.aggregate(Tally, tally).ask(Count(number=number))
            self.counted.setdefault(tally, []).append((number, reply))
            if awaits:
                with contextlib.suppress(ValueError, WorkCancelled, OutcomeUnknown):
                    await reply

        self.runner.run(command())

    @rule()
    def passivate(self) -> None:
        async def passivate() -> None:
            self.clock.advance(120)

        self.runner.run(passivate())

    def teardown(self) -> None:
        if not hasattr(self, "system"):
            return
        try:
            self.runner.run(asyncio.wait_for(self._end(), patience(30)))
        finally:
            for life in self.all:
                life.open()
            self.runner.close()

    async def _end(self) -> None:
        witness = Life()
        witness.ref = await self.system.spawn(OnLoop, witness)
        for number in range(5):
            assert await witness.ref.ask(("yield", number)) == number, "isolation: others do not matter"
        tallies = {tally: self.system.aggregate(Tally, tally) for tally in self.counted}
        for tally, counted in self.counted.items():
            count = await tallies[tally].ask(Count(number=0))
            ends = [ended_with(reply) for number, reply in counted if number % 7 != 3]
            recorded = sum(not isinstance(end, Exception) for end in ends)
            unknown = sum(isinstance(end, OutcomeUnknown) for end in ends)
            assert recorded < count <= recorded + unknown + 1
        for life in self.all:
            if not life.stuck:
                life.open()
        for life in self.all:
            if life.asyncio_gate.is_set() and not life.killed:
                await self._all_handled(life)
            if life.cell is not None:
                life.cell.kill()
        await self.system.stop(0.02 if any(not life.asyncio_gate.is_set() for life in self.all) else 10)
        dead = Counter(record.message[1] for record in self.system.dead_messages())
        for life in self.all:
            life.open()
            await until(lambda life=life: not life.inside)
            handled = Counter(life.handled)
            assert life.overlaps == 0, "one message at a time"
            assert life.while_failed == 0, "none between a failure and the restart"
            assert life.handled == sorted(life.handled), "in the order in which they were sent"
            for number in life.sent:
                reply = life.asked.get(number)
                if reply is not None:
                    assert reply.done(), "every ask ends"
                    ended_with(reply)
                    assert handled[number] <= 1
                else:
                    ends = handled[number] + dead[number] + (number in life.refused)
                    assert ends == 1, (
                        f"{number} was handled {handled[number]} times, dead {dead[number]} times"
                    )
        for counted in self.counted.values():
            assert all(reply.done() for _, reply in counted)
            assert all(isinstance(ended_with(reply), int | Exception) for _, reply in counted)

    async def _all_handled(self, life: Life) -> None:
        """An actor that is free, and is restarted whenever it fails, handles all that it was sent."""
        last = self._send(life, "", asks=True)
        while not last.done():
            if life.failures and life.cell is not None:
                life.failures.clear()
                life.cell.restart()
            await asyncio.sleep(0.0001)
        if life.cell is not None and life.ref.is_alive():
            assert life.handled == life.sent


TestLife = LifeMachine.TestCase
TestLife.settings = settings(
    max_examples=150, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
