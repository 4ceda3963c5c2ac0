"""Handlers of all kinds together, which fail, are operated, leave and come back, compared with the expected results."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.bank import BankStore, Credited
from tests.waiting import turns
from uno_actors import (
    ActorSystem,
    Backoff,
    EventPriority,
    HandlerContext,
    InvalidReset,
    InvalidSupervisor,
    Projection,
    StoreUnavailable,
    Supervisor,
    UnknownHandler,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.view import aside_key, entry_of
from uno_actors.store.records import StoredRecord

OPTIONS: list[dict[str, Any]] = [{}, {"batch": 2}, {"timeout": 5.0}, {"batch": 3, "timeout": 5.0}]
ABREAST: list[dict[str, Any]] = [{"concurrency": 2}, {"concurrency": 3}]
ALLOWED = (StoreUnavailable, UnknownHandler, InvalidReset, InvalidSupervisor)
"""Errors that an operator may get: the store is away, the handler has left, it lags, its group restarts."""


class Counting(Projection[Credited]):
    """Counts how often it has counted each position; fails at ``bad`` after that."""

    bad: set[int]

    async def handle(self, event: Credited, context: HandlerContext) -> None:
        times = await self.view.get(context.position, 0)
        self.view.put(context.position, times + 1)
        await asyncio.sleep(0)
        if event.amount in self.bad:
            raise ValueError(event.amount)


class DistantStore(BankStore):
    """Reads slowly."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    async def read_log(self, after: int, limit: int) -> list[StoredRecord]:
        await turns(self.chance.randint(0, 4))
        return await super().read_log(after, limit)


class World:
    """Draws handlers and what happens to them. Amounts are 0 to 5; some are ``bad`` until they are healed."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.store = DistantStore(chance)
        self.bad = set(chance.sample(range(6), chance.choice([0, 0, 1, 2])))
        self.handled: dict[str, list[str]] = {}
        self.recorded: list[str] = []  # ids, in the order of the log
        self.specs = {spec.name: spec for spec in map(self._draw, range(chance.randint(1, 5)))}
        self.rules: dict[str, Any] = {
            "strategy": chance.choice(["one_for_one", "one_for_all", "rest_for_one"]),
            "directives": chance.choice([{}, {ValueError: "resume"}, {Exception: "resume"}]),
        }

    def _draw(self, number: int) -> HandlerSpec:
        name, chance = f"handler-{number}", self.chance
        priority, attempts = chance.choice(list(EventPriority)), chance.choice([1, 2])
        kind = chance.choice(["async", "plain", "projection"])
        options = chance.choice(OPTIONS + (ABREAST if kind != "projection" else []))
        if kind == "projection":
            target: Any = type("Counting", (Counting,), {"bad": self.bad})
            start = "latest"
        else:
            target, start = self._target(name, is_async=kind == "async"), "earliest"
        return HandlerSpec(name, target, Credited, None, priority, start, attempts, **options)  # type: ignore[arg-type]

    def _target(self, name: str, *, is_async: bool) -> Callable[[Any], Any]:
        handled = self.handled[name] = []

        def handle(given: Any) -> None:
            for event in given if isinstance(given, list) else [given]:
                if event.amount in self.bad:
                    raise ValueError(event.amount)
                handled.append(event.event_id)

        async def handle_later(given: Any) -> None:
            await asyncio.sleep(0)
            handle(given)

        return handle_later if is_async else handle

    def system(self, **rules: Any) -> ActorSystem:
        quick = Supervisor(
            "quick", list(self.specs.values()), max_restarts=None, backoff=Backoff(initial=0, max=0), **rules
        )
        return ActorSystem(self.store, aggregates=[], handlers=[], supervisors=[quick])

    async def step(self, system: ActorSystem) -> None:
        """Something happens."""
        chance, name = self.chance, self.chance.choice(list(self.specs))
        what = ["append"] * 10 + ["turns"] * 4 + ["pause", "resume", "retry", "come", "sleep"] * 2
        match chance.choice([*what, "reset", "leave", "fault", "heal"]):
            case "append":
                streams = [chance.choice([None, "a", "b", "c"]) for _ in range(chance.randint(1, 5))]
                events = [Credited(amount=chance.randint(0, 5), aggregate_id=stream) for stream in streams]
                await self.store.append(*events)
                self.recorded += [event.event_id for event in events]
            case "turns":
                await turns(chance.randint(1, 10))
            case "sleep":
                await asyncio.sleep(chance.choice([0.001, 0.06]))
            case "pause":
                await system.pause(name)
            case "resume":
                await system.resume(name)
            case "retry":
                await system.retry_dead_letters(name)
            case "reset":
                place = next((each.position for each in await system.handlers() if each.name == name), 0)
                await system.reset(name, chance.randint(0, place))
            case "leave":
                await system.unsubscribe(name)
            case "come":
                await system.supervisor("quick").start_child(self.specs[name])
            case "fault":
                errors = chance.choice([self.store.read_log_errors, self.store.save_errors])
                errors.append(StoreUnavailable("memory:", "for a test"))
            case _:
                self.bad.clear()

    async def run(self, steps: int) -> None:
        """Let so many things happen, in several systems one after the other; then check all."""
        while steps > 0:
            async with self.system(**self.rules) as system:
                for _ in range(now := min(steps, self.chance.randint(1, 20))):
                    with suppress(*ALLOWED):
                        await self.step(system)
                steps -= now
                self.store.read_log_errors.clear()
                self.store.save_errors.clear()
        async with self.system() as system:
            for name in self.specs:
                await system.resume(name)
            await system.settled()
            await self._check(system)
            await turns()
            for name in self.specs:
                await system.reset(name, "earliest")
            await system.settled()
        done = {name: list(handled) for name, handled in self.handled.items()}
        async with self.system() as system:
            await system.settled()
            assert self.handled == done, "nothing is left to be done"
            await self._check(system)

    async def _check(self, system: ActorSystem) -> None:
        for name, spec in self.specs.items():
            await (self._check_view(system, name) if spec.keeps_a_view else self._check_handled(name))

    async def _check_handled(self, name: str) -> None:
        """No event is missing."""
        aside = {letter.position for letter in await self.store.dead_letters(name)}
        there = set(self.handled[name])
        missing = [position for position, event in enumerate(self.recorded, 1) if event not in there]
        assert set(missing) <= aside

    async def _check_view(self, system: ActorSystem, name: str) -> None:
        """Each event is counted once, or it is a dead letter and the view says that it was set aside."""
        counted = dict(await system.view(self.specs[name]).range())
        writing = (await entry_of(self.store, name)).writing or ""
        noted = {key for key, _ in await self.store.read_view(writing, b"\0", b"\x01", None)}
        missing = [position for position in range(1, len(self.recorded) + 1) if position not in counted]
        assert set(counted.values()) <= {1}
        assert noted == {aside_key(position) for position in missing}
        assert set(missing) <= {letter.position for letter in await self.store.dead_letters(name)}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_to_handlers_no_event_is_missed_or_counted_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        monkeypatch.setattr("uno_actors.handlers.router.CHECKPOINT_EVERY", chance.choice([0, 0.05]))
        monkeypatch.setattr("uno_actors.handlers.router.WINDOW", chance.choice([2, 4096]))
        monkeypatch.setattr("uno_actors.handlers.subscription.CAPACITY", chance.choice([1, 3, 2048]))
        monkeypatch.setattr("uno_actors.handlers.concurrent.LOOK_AHEAD", chance.choice([2, 256]))
        asyncio.run(World(chance).run(chance.randint(5, 40)))
