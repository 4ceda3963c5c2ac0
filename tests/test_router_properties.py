"""Random events, handlers, priorities and failures against a simple model of the expected results."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank import BankStore, BonusCredited, Credited, Debited
from uno_actors import ActorSystem, Backoff, DomainEvent, EventPriority, Supervisor
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.topics import TopicPattern

MAX_ATTEMPTS = 3
FOR_EVER = 99

Event = Credited | Debited


@dataclass(frozen=True)
class Handler:
    """The events that a handler wants, and how often it fails at which event."""

    name: str
    priority: EventPriority
    event_type: type[DomainEvent] | None
    pattern: str | None
    is_async: bool
    failures: dict[int, int] = field(hash=False)

    def wants(self, event: Event) -> bool:
        if self.event_type is not None and not isinstance(event, self.event_type):
            return False
        return self.pattern is None or (
            event.topic is not None and TopicPattern(self.pattern).matches(event.topic)
        )

    @property
    def never_fails(self) -> bool:
        return not any(self.failures.values())


event_kinds = st.sampled_from(
    [
        (Credited, "bank.credited"),
        (Credited, None),
        (BonusCredited, "bank.bonus.credited"),
        (Debited, "bank.debited"),
        (Debited, "shop.debited"),
    ]
)
patterns = st.sampled_from([None, "bank.*", "bank.>", "*.debited", ">", "bank.credited"])
event_types = st.sampled_from([None, Credited, BonusCredited, Debited, DomainEvent])


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[list[list[Event]], list[Handler]]:
    kinds = draw(st.lists(st.lists(event_kinds, min_size=1, max_size=12), min_size=1, max_size=5))
    batches, number = [], 0
    for batch in kinds:
        events = []
        for kind, topic in batch:
            number += 1
            events.append(kind(amount=number, topic=topic))
        batches.append(events)
    failures = st.dictionaries(st.integers(1, number), st.sampled_from([1, 2, FOR_EVER]), max_size=3)
    handlers = [
        Handler(
            f"handler-{n}",
            draw(st.sampled_from(EventPriority)),
            draw(event_types),
            draw(patterns),
            draw(st.booleans()),
            draw(st.one_of(st.just({}), failures)),
        )
        for n in range(draw(st.integers(1, 6)))
    ]
    return batches, handlers


class Run:
    """Runs a scenario and records, in one list, what each handler started and finished."""

    def __init__(self, handlers: list[Handler]) -> None:
        self.handlers = handlers
        self.store = BankStore()
        self.log: list[tuple[str, str, int]] = []
        self.failed: Counter[tuple[str, int]] = Counter()

    def system(self) -> ActorSystem:
        specs = [
            HandlerSpec(
                handler.name,
                self.target(handler),
                handler.event_type,
                None if handler.pattern is None else TopicPattern(handler.pattern),
                handler.priority,
                "earliest",
                MAX_ATTEMPTS,
            )
            for handler in self.handlers
        ]
        quick = Supervisor("quick", specs, max_restarts=None, backoff=Backoff(initial=0, max=0))
        return ActorSystem(self.store, aggregates=[], handlers=[], supervisors=[quick])

    def target(self, handler: Handler) -> Any:
        def begin(event: Event) -> None:
            self.log.append(("begin", handler.name, event.amount))

        def end(event: Event) -> None:
            if self.failed[handler.name, event.amount] < handler.failures.get(event.amount, 0):
                self.failed[handler.name, event.amount] += 1
                raise ValueError(event.amount)
            self.log.append(("end", handler.name, event.amount))

        async def handle(event: Event) -> None:
            begin(event)
            await asyncio.sleep(0)
            end(event)

        def handle_plain(event: Event) -> None:
            begin(event)
            end(event)

        return handle if handler.is_async else handle_plain

    def ended(self, handler: Handler) -> list[int]:
        return [number for what, name, number in self.log if (what, name) == ("end", handler.name)]

    async def check_each_handler(self, events: list[Event]) -> None:
        """Each event that it wants was handled once or is one dead letter, in the order of the log."""
        letters = [(letter.handler, letter.position) for letter in await self.store.dead_letters()]
        for handler in self.handlers:
            wanted = [event.amount for event in events if handler.wants(event)]
            poison = [number for number in wanted if handler.failures.get(number) == FOR_EVER]
            assert self.ended(handler) == [number for number in wanted if number not in poison]
            assert [position for name, position in letters if name == handler.name] == poison
            begun = [number for what, name, number in self.log if (what, name) == ("begin", handler.name)]
            assert begun == sorted(begun), "an event is not begun again after a later one"

    def check_attempts(self, events: list[Event]) -> None:
        begun = Counter((name, number) for what, name, number in self.log if what == "begin")
        for handler in self.handlers:
            for event in filter(handler.wants, events):
                attempts = min(handler.failures.get(event.amount, 0) + 1, MAX_ATTEMPTS)
                assert begun[handler.name, event.amount] == attempts

    def check_priorities(self, events: list[Event]) -> None:
        """No handler begins what a handler before it, that was never without its turn, has not ended."""
        place = {entry: index for index, entry in reversed(list(enumerate(self.log)))}
        for event in events:
            wanting = [handler for handler in self.handlers if handler.wants(event)]
            for before in (handler for handler in wanting if handler.never_fails):
                for after in (handler for handler in wanting if handler.priority > before.priority):
                    ended = place["end", before.name, event.amount]
                    assert ended < place["begin", after.name, event.amount]


@given(scenarios(), st.booleans())
@settings(max_examples=80)
def test_every_handler_gets_its_events_in_order_and_after_handlers_of_higher_priority(
    scenario: tuple[list[list[Event]], list[Handler]], wait: bool
) -> None:
    batches, handlers = scenario
    run = Run(handlers)
    events = [event for batch in batches for event in batch]

    async def play() -> None:
        async with run.system() as system:
            for batch in batches:
                await run.store.append(*batch)
                if wait:
                    await asyncio.sleep(0)
            await system.settled()
        await run.check_each_handler(events)
        run.check_attempts(events)
        run.check_priorities(events)

    asyncio.run(play())


@given(scenarios(), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=60)
def test_the_same_holds_with_small_queues_and_a_new_system_for_each_batch(
    scenario: tuple[list[list[Event]], list[Handler]], window: int, capacity: int
) -> None:
    batches, handlers = scenario
    run = Run(handlers)

    async def play() -> None:
        for batch in batches:
            async with run.system():
                await run.store.append(*batch[: len(batch) // 2])
                await asyncio.sleep(0)
                await run.store.append(*batch[len(batch) // 2 :])
        async with run.system() as system:
            await system.settled()
        await run.check_each_handler([event for batch in batches for event in batch])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.handlers.router.WINDOW", window)
        patch.setattr("uno_actors.handlers.subscription.CAPACITY", capacity)
        asyncio.run(play())
