"""A caller waits until handlers have handled what it has recorded: woken by their progress, and never for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from typing_extensions import override

from tests.faults import waits_kept
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    CommandReply,
    DeadlockError,
    DomainEvent,
    EventHandler,
    EventPriority,
    EventRegistry,
    EventSetAside,
    EventStore,
    HandlerContext,
    InvalidHandler,
    InvalidNumber,
    InvalidPosition,
    NotHandled,
    ProcessManager,
    Projection,
    SystemNotRunning,
    WaitsForItself,
    WaitTimeout,
    handles,
    reacts,
    subscribe,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.shards import shard_of_key
from uno_actors.store.records import PAGE, StoredRecord
from uno_stores import InMemoryEventStore


class Stocked(DomainEvent):
    amount: int
    topic: str = "stock.stocked"


class Emptied(DomainEvent):
    topic: str = "stock.emptied"


class Stock(Command[int]):
    amount: int


class StockTwice(Command[None]):
    first: int
    second: int


class Count(Command[int]):
    pass


class Refill(Command[None]):
    pass


class Shelf(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.amount = 0

    @handles
    def stock(self, command: Stock) -> int:
        if command.amount < 0:
            raise CommandRejected("negative")
        self.register_event(Stocked(amount=command.amount))
        return self.amount

    @handles
    def twice(self, command: StockTwice) -> None:
        self.register_event(Stocked(amount=command.first))
        self.register_event(Stocked(amount=command.second))

    @handles
    def refill(self, command: Refill) -> None:
        self.register_event(Emptied())

    @handles
    def count(self, command: Count) -> int:
        return self.amount

    def apply_stocked(self, event: Stocked) -> None:
        self.amount += event.amount

    def apply_emptied(self, event: Emptied) -> None:
        pass


EVENTS = EventRegistry([Stocked, Emptied])


class Amounts(Projection[Stocked, str]):
    """The amount on each shelf."""

    async def handle(self, event: Stocked) -> None:
        key = event.aggregate_id or ""
        self.view.put(key, await self.view.get(key, 0) + event.amount)


class Gate:
    """A handler that waits for its gate, and fails for certain amounts."""

    def __init__(self, *, fails_for: int | None = None, is_open: bool = True) -> None:
        self.open = asyncio.Event()
        self.began = asyncio.Event()
        self.handled: list[int] = []
        self.fails_for = fails_for
        if is_open:
            self.open.set()

    async def __call__(self, event: Stocked) -> None:
        self.began.set()
        await self.open.wait()
        if event.amount == self.fails_for:
            raise ValueError("poison")
        self.handled.append(event.amount)


def of(store: EventStore | None = None, *handlers: object, **options: Any) -> ActorSystem:
    return ActorSystem(
        InMemoryEventStore(EVENTS) if store is None else store,
        aggregates=options.pop("aggregates", [Shelf]),
        handlers=handlers,
        **options,
    )


@asynccontextmanager
async def behind_a_gate(clock: ManualClock | None = None) -> AsyncIterator[tuple[ActorSystem, Gate]]:
    gate = Gate(is_open=False)
    spec = HandlerSpec("gate", gate, event_type=Stocked)
    async with of(None, spec, **({} if clock is None else {"clock": clock})) as system:
        yield system, gate
        gate.open.set()


# --- a view shows what the caller has recorded -------------------------------------------------------------


async def test_a_view_shows_what_was_recorded_when_the_reply_comes() -> None:
    async with of(None, Amounts) as system:
        shelf = system.aggregate(Shelf, "a")
        for number in range(1, 30):
            assert await shelf.ask(Stock(amount=1), wait_for=Amounts) == number
            assert await system.view(Amounts).get("a") == number


class HandlesStocked(EventHandler[Stocked]):
    seen: list[int]

    def __init__(self) -> None:
        super().__init__(Stocked)
        self.seen = []

    async def handle(self, event: Stocked) -> None:
        self.seen.append(event.amount)


class Refills(ProcessManager):
    sends_to = (Shelf,)

    @reacts
    def emptied(self, event: Stocked) -> None:
        self.send(Shelf, "refilled", Refill())


SEEN: list[int] = []


@subscribe(name="waited for by its function")
async def note(event: Stocked) -> None:
    SEEN.append(event.amount)


@pytest.mark.parametrize(
    "given",
    [
        lambda: (HandlesStocked, HandlesStocked),
        lambda: (instance := HandlesStocked(), instance),
        lambda: (note, note),
        lambda: (note, "waited for by its function"),
        lambda: (Amounts, Amounts()),
        lambda: (Refills.handler(), Refills),
        lambda: (Refills.handler("named otherwise"), Refills),
        lambda: (Refills.handler("named by the program"), "named by the program"),
        lambda: (spec := HandlerSpec("spec", Gate(), event_type=Stocked), spec),
    ],
    ids=["class", "instance", "function", "name", "other-instance", "process", "renamed", "own-name", "spec"],
)
async def test_a_handler_is_named_by_what_the_program_has_or_by_its_name(
    given: Callable[[], tuple[object, object]],
) -> None:
    handler, named = given()
    async with of(None, handler, aggregates=[Shelf, Refills]) as system:
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=named)
        await reply
        (statistics,) = system.statistics().handlers.values()
        assert statistics.position >= (reply.position or 0) > 0
        assert statistics.handled == 1


async def test_several_handlers_are_waited_for_and_the_slowest_ends_the_wait() -> None:
    gate, quick = Gate(is_open=False), Gate()
    specs = [HandlerSpec("slow", gate, event_type=Stocked), HandlerSpec("quick", quick, event_type=Stocked)]
    async with of(None, *specs, clock=ManualClock()) as system:
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=("slow", "quick"))
        await until(lambda: quick.handled and gate.began.is_set())
        await turns()
        assert not reply.done()
        gate.open.set()
        assert await reply == 1


async def test_a_wait_is_ended_by_the_progress_of_the_handler_and_by_no_timer() -> None:
    """The clock stands still, so nothing that looks from time to time could end it."""
    clock = ManualClock()
    async with behind_a_gate(clock) as (system, gate):
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="gate")
        await gate.began.wait()
        assert not reply.done()
        gate.open.set()
        assert await reply == 1
        assert clock.now == 1000.0


class HeldReads(InMemoryEventStore):
    """A store whose log the router reads only when it may."""

    def __init__(self) -> None:
        super().__init__(EVENTS)
        self.may_read = asyncio.Event()

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        await self.may_read.wait()
        return await super().read_log(after, limit)


async def test_a_handler_that_wants_none_of_the_events_passes_them_while_another_is_still_busy() -> None:
    store, gate = HeldReads(), Gate(is_open=False)
    slow = HandlerSpec("slow", gate, event_type=Stocked, priority=EventPriority.LOW)
    other = HandlerSpec("other", Gate(), event_type=Emptied, priority=EventPriority.HIGH)
    async with of(store, slow, other, clock=ManualClock()) as system:
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="other")
        await until(lambda: reply.position)
        assert not reply.done()
        store.may_read.set()
        assert await reply == 1
        gate.open.set()


async def test_a_handler_that_catches_up_ends_the_waits_for_what_it_has_passed() -> None:
    store, gate = InMemoryEventStore(EVENTS), Gate(is_open=False)
    async with of(store) as system:
        for number in range(3):
            await system.aggregate(Shelf, "a").ask(Stock(amount=number))
    spec = HandlerSpec("late", gate, event_type=Stocked, start="earliest")
    async with of(store, spec, clock=ManualClock()) as system:
        waiting = [asyncio.ensure_future(system.wait_for("late", position)) for position in (3, 1, 2)]
        await gate.began.wait()
        await turns()
        assert not any(wait.done() for wait in waiting)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert gate.handled == [0, 1, 2]


async def test_a_command_that_records_nothing_has_nothing_to_wait_for() -> None:
    async with behind_a_gate() as (system, _):
        reply = system.aggregate(Shelf, "a").ask(Count(), wait_for="gate")
        assert (await reply, reply.position, reply.token) == (0, None, None)


async def test_a_rejected_command_is_refused_without_waiting() -> None:
    async with behind_a_gate() as (system, _):
        with pytest.raises(CommandRejected):
            await system.aggregate(Shelf, "a").ask(Stock(amount=-1), wait_for="gate")


async def test_replies_say_where_their_events_are() -> None:
    store = InMemoryEventStore(EVENTS)
    async with of(store) as system:
        shelf = system.aggregate(Shelf, "a")
        replies: list[CommandReply[Any]] = [
            shelf.ask(StockTwice(first=1, second=2)),
            shelf.ask(Count()),
            shelf.ask(Stock(amount=3)),
        ]
        assert [reply.position for reply in replies] == [None, None, None]
        for reply in replies:
            await reply
        assert [reply.position for reply in replies] == [2, None, 3]
        await system.wait_for((), replies[0].token or "")


async def test_a_repeated_command_has_the_place_of_its_first_time_and_waits_too() -> None:
    async with of(None, Amounts) as system:
        shelf = system.aggregate(Shelf, "a")
        together = [shelf.ask(Stock(amount=1, command_id="once"), wait_for=Amounts) for _ in range(3)]
        assert [await reply for reply in together] == [1, 1, 1]
        await shelf.ask(Stock(amount=1))
        again = shelf.ask(Stock(amount=1, command_id="once"), wait_for=Amounts)
        assert await again == 1
        assert {reply.position for reply in (*together, again)} == {1}
        assert {reply.token for reply in (*together, again)} == {again.token}


async def test_a_view_that_is_built_anew_ends_a_wait_only_when_readers_get_it() -> None:
    store = InMemoryEventStore(EVENTS)
    async with of(store, Amounts) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=Amounts)

    gate = asyncio.Event()

    class Doubled(Projection[Stocked, str]):
        version = 2

        async def handle(self, event: Stocked) -> None:
            await gate.wait()
            key = event.aggregate_id or ""
            self.view.put(key, await self.view.get(key, 0) + 2 * event.amount)

    async with of(store, HandlerSpec(Amounts.__module__ + ".Amounts", Doubled)) as system:
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=Doubled)
        await turns()
        assert not reply.done()
        gate.set()
        assert await reply == 2
        assert await system.view(HandlerSpec(Amounts.__module__ + ".Amounts", Doubled)).get("a") == 4


async def test_a_thousand_waits_at_once_end_with_their_own_replies() -> None:
    async with of(None, Amounts) as system:
        shelves = [system.aggregate(Shelf, f"shelf-{number}") for number in range(1000)]
        replies = [shelf.ask(Stock(amount=number), wait_for=Amounts) for number, shelf in enumerate(shelves)]
        assert [await reply for reply in replies] == [*range(1000)]


def test_a_synchronous_program_waits_in_the_same_way() -> None:
    with of(None, Amounts) as system:
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=Amounts, wait_timeout=20)
        assert reply.get(timeout=20) == 1
        assert system.run(system.view(Amounts).get("a")) == 1
        system.run(system.wait_for(Amounts, reply.token or ""))


# --- how a wait ends otherwise -----------------------------------------------------------------------------


async def test_a_wait_that_takes_too_long_says_what_was_recorded() -> None:
    clock = ManualClock()
    async with behind_a_gate(clock) as (system, gate):
        reply = system.aggregate(Shelf, "a").ask(Stock(amount=7), wait_for="gate", wait_timeout=5)
        await gate.began.wait()
        clock.advance(4.9)
        await turns()
        assert not reply.done()
        clock.advance(0.2)
        with pytest.raises(
            WaitTimeout, match=r"recorded.* not handled by gate: not within 5 s; gate is"
        ) as late:
            await reply
        assert (late.value.reply, late.value.position, late.value.token) == (7, 1, reply.token)
        assert late.value.handlers == ("gate",)
        assert isinstance(late.value, TimeoutError)
        gate.open.set()
        await system.wait_for("gate", late.value.token or "")
        assert gate.handled == [7]


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", True])
async def test_a_wait_timeout_that_is_no_number_of_seconds_is_refused_and_nothing_is_sent(
    seconds: Any,
) -> None:
    async with of(None, Amounts) as system:
        with pytest.raises(InvalidNumber, match="wait_timeout"):
            system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=Amounts, wait_timeout=seconds)
        assert await system.store.last_position() == 0


async def test_an_event_among_the_dead_letters_ends_the_wait_whichever_of_the_command_it_is() -> None:
    poison = HandlerSpec("poison", Gate(fails_for=2), event_type=Stocked, max_attempts=1)
    async with of(None, poison) as system:
        shelf = system.aggregate(Shelf, "a")
        for command, letter in ((Stock(amount=2), 1), (StockTwice(first=2, second=1), 2)):
            reply: CommandReply[Any] = shelf.ask(command, wait_for="poison")
            with pytest.raises(EventSetAside, match="dead letters") as aside:
                await reply
            assert (aside.value.letter, aside.value.position) == (letter, reply.position)
        assert await shelf.ask(Stock(amount=1), wait_for="poison") == 6
        token = reply.token or ""
        with pytest.raises(EventSetAside):
            await system.wait_for("poison", token)


async def test_a_dead_letter_of_an_earlier_run_is_known_and_one_that_was_retried_is_none() -> None:
    store = InMemoryEventStore(EVENTS)
    gate = Gate(fails_for=2)
    async with of(store, HandlerSpec("poison", gate, event_type=Stocked, max_attempts=1)) as system:
        with pytest.raises(EventSetAside):
            await system.aggregate(Shelf, "a").ask(Stock(amount=2), wait_for="poison")
    async with of(store, HandlerSpec("poison", gate, event_type=Stocked, max_attempts=1)) as system:
        with pytest.raises(EventSetAside):
            await system.wait_for("poison", 1)
        gate.fails_for = None
        await system.retry_dead_letters("poison")
        await until(lambda: gate.handled == [2])
        await system.settled()
        await until(lambda: _has_no_letters(store))
        await system.wait_for("poison", 1)


async def _has_no_letters(store: EventStore) -> bool:
    return not await store.dead_letters()


async def test_a_paused_handler_ends_waits_at_once_and_handles_all_when_it_is_resumed() -> None:
    async with behind_a_gate(ManualClock()) as (system, gate):
        shelf = system.aggregate(Shelf, "a")
        before = shelf.ask(Stock(amount=1), wait_for="gate")
        await gate.began.wait()
        await system.pause("gate")
        with pytest.raises(NotHandled, match="it is paused") as paused:
            await before
        assert paused.value.reply == 1
        with pytest.raises(NotHandled, match="it is paused"):
            await shelf.ask(Stock(amount=1), wait_for="gate")
        gate.open.set()
        await system.resume("gate")
        assert await shelf.ask(Stock(amount=1), wait_for="gate") == 3
        assert gate.handled == [1, 1, 1]


async def test_a_handler_that_is_stopped_ends_waits_at_once() -> None:
    async with behind_a_gate(ManualClock()) as (system, gate):
        shelf = system.aggregate(Shelf, "a")
        before = shelf.ask(Stock(amount=1), wait_for="gate")
        await gate.began.wait()
        leaving = asyncio.ensure_future(system.unsubscribe("gate"))
        with pytest.raises(NotHandled, match="stopped") as stopped:
            await before
        assert stopped.value.reply == 1
        gate.open.set()
        await leaving
        with pytest.raises(NotHandled, match="no process runs it") as none:
            await shelf.ask(Stock(amount=1), wait_for="gate")
        assert none.value.reply == 2


async def test_a_handler_that_no_process_has_is_an_error_at_once_with_the_reply() -> None:
    async with of(None, clock=ManualClock()) as system:
        for unknown in (Amounts, "unknown"):
            with pytest.raises(NotHandled, match="a handler of this name; this process has none") as none:
                await system.aggregate(Shelf, "a").ask(Stock(amount=0), wait_for=unknown)
            assert none.value.reply == 0
        for wrong in (7, "", asyncio):  # the module has no handlers
            with pytest.raises(InvalidHandler):
                system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=wrong)
        assert await system.store.last_position() == 2


async def test_a_system_that_stops_ends_the_waits_of_its_callers() -> None:
    gate = Gate(is_open=False)
    system = of(None, HandlerSpec("gate", gate, event_type=Stocked))
    await system.start()
    reply = system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="gate")
    await gate.began.wait()
    await system.stop(timeout=0.05)
    with pytest.raises(NotHandled, match="stopped"):
        await reply
    with pytest.raises(SystemNotRunning):
        system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="gate")


async def test_a_wait_that_begins_as_the_system_stops_ends_at_once() -> None:
    """As when the store was slow to say what is at the position."""

    class Slow(InMemoryEventStore):
        def __init__(self) -> None:
            super().__init__(EVENTS)
            self.asked, self.open = asyncio.Event(), asyncio.Event()
            self.open.set()

        async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
            if not self.open.is_set():
                self.asked.set()
                await self.open.wait()
            return await super().read_log(after, limit)

    store = Slow()
    async with of(store, HandlerSpec("gate", Gate(is_open=False), event_type=Emptied)) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1))
        await system.settled()
        store.open.clear()
        waiting = asyncio.ensure_future(system.wait_for("gate", 1, timeout=30))
        await store.asked.wait()
    store.open.set()
    with pytest.raises(NotHandled, match="stopped"):
        await asyncio.wait_for(waiting, 5)


async def test_a_caller_that_is_cancelled_as_its_handler_arrives_does_no_harm_to_the_handler() -> None:
    async with behind_a_gate(ManualClock()) as (system, gate):
        await system.aggregate(Shelf, "a").ask(Stock(amount=1))
        waiting = asyncio.ensure_future(system.wait_for("gate", 1))
        await gate.began.wait()
        await turns()
        gate.open.set()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="gate") == 2
        assert system.statistics().handlers["gate"].failures == 0
        assert system.statistics().handlers["gate"].restarts == 0


async def test_waits_that_were_given_up_are_forgotten_although_their_handler_hangs() -> None:
    clock = ManualClock()
    async with behind_a_gate(clock) as (system, _):
        shelf = system.aggregate(Shelf, "a")
        for _ in range(300):
            reply = shelf.ask(Stock(amount=1), wait_for="gate", wait_timeout=0.01)
            await until(lambda reply=reply: reply.position)
            clock.advance(0.02)
            with suppress(WaitTimeout):
                await reply
        assert waits_kept(system) < 130


# --- partitions --------------------------------------------------------------------------------------------


async def test_only_the_partition_that_has_the_event_is_waited_for() -> None:
    blocked: set[str] = set()
    gate, handled = asyncio.Event(), list[str]()

    async def handle(event: Stocked, context: HandlerContext) -> None:
        if event.amount == 13:
            blocked.add(context.handler)
            await gate.wait()
        handled.append(event.aggregate_id or "")

    spec = HandlerSpec("parts", handle, event_type=Stocked, partitioned=4)
    async with of(None, spec, clock=ManualClock()) as system:
        stuck = system.aggregate(Shelf, "stuck").ask(Stock(amount=13), wait_for="parts")
        await until(lambda: blocked)
        (there,) = blocked
        for number in range(30):
            name = f"shelf-{number}"
            reply = system.aggregate(Shelf, name).ask(Stock(amount=1), wait_for="parts")
            if partition_of(name, 4) == there:
                await turns()
                assert not reply.done()
            else:
                assert await reply == 1
                assert name in handled
        assert not stuck.done()
        gate.set()
        assert await stuck == 13


ALL = [f"shelf-{number}" for number in range(30)]


def partition_of(aggregate_id: str, count: int) -> str:
    return f"parts@{shard_of_key('Shelf', aggregate_id) % count + 1}of{count}"


async def test_the_view_of_a_partitioned_projection_is_waited_for_until_all_partitions_show_it() -> None:
    spec = HandlerSpec("parted", Amounts, partitioned=4)
    async with of(None, spec) as system:
        for number in range(12):
            reply = system.aggregate(Shelf, f"shelf-{number}").ask(Stock(amount=5), wait_for=spec)
            assert await reply == 5
            assert await system.view(spec).get(f"shelf-{number}") == 5
            await system.wait_for(Amounts, reply.token or "")


async def test_a_partitioned_view_that_is_not_built_yet_is_waited_for_until_its_last_partition_has_built_it() -> (
    None
):
    store, gate = InMemoryEventStore(EVENTS), asyncio.Event()
    old, new = "shelf-0", next(name for name in ALL if partition_of(name, 4) != partition_of("shelf-0", 4))

    class Slow(Amounts):
        async def handle(self, event: Stocked) -> None:
            if event.aggregate_id == old:
                await gate.wait()
            await super().handle(event)

    async with of(store) as system:
        await system.aggregate(Shelf, old).ask(Stock(amount=1))
    spec = HandlerSpec("parted", Slow, partitioned=4)
    async with of(store, spec, clock=ManualClock()) as system:
        reply = system.aggregate(Shelf, new).ask(Stock(amount=2), wait_for=spec)
        await until(lambda: reply.position)
        await turns(200)
        assert not reply.done()
        gate.set()
        assert await reply == 2
        assert await system.view(spec).range() == [(old, 1), (new, 2)]


async def test_a_process_that_reacts_to_the_events_is_waited_for_in_its_partition() -> None:
    spec = Refills.handler("processes", partitioned=4)
    async with of(None, spec, aggregates=[Shelf, Refills]) as system:
        for number in range(8):
            reply = system.aggregate(Shelf, f"shelf-{number}").ask(Stock(amount=1), wait_for=Refills)
            await reply
            await system.wait_for(Refills, reply.token or "")
            refills = [record for record in records_of(system) if record.event_type == "Emptied"]
            assert len(refills) == number + 1


def records_of(system: ActorSystem) -> list[Any]:
    assert isinstance(system.store, InMemoryEventStore)
    return [*system.store.records]


# --- circles -----------------------------------------------------------------------------------------------


async def error_of(waiting: Callable[[], Any]) -> Exception:
    try:
        await asyncio.wait_for(waiting(), 20)
    except (WaitsForItself, DeadlockError, NotHandled) as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"partitioned": 4}, {"batch": 8}], ids=str)
async def test_a_handler_that_waits_for_itself_is_told_at_once_and_nothing_is_sent(options: Any) -> None:
    errors: list[Exception] = []

    async def handle(event: Any, context: HandlerContext) -> None:
        shelf = context.system.aggregate(Shelf, "other")
        errors.append(await error_of(lambda: _asked(shelf, "itself")))
        errors.append(await error_of(lambda: running.wait_for(("itself",), 1)))

    spec = HandlerSpec("itself", handle, event_type=Stocked, **options)
    running = of(None, spec, clock=ManualClock())
    async with running:
        assert await running.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="itself") == 1
        assert [type(error) for error in errors] == [WaitsForItself, WaitsForItself]
        assert all("itself -> itself" in str(error) for error in errors)
        assert await running.store.last_position() == 1


async def _asked(shelf: Any, name: str) -> None:
    await shelf.ask(Stock(amount=1), wait_for=name)


def test_a_plain_handler_that_waits_for_itself_is_told_at_once_too() -> None:
    errors: list[Exception] = []

    def handle(event: Stocked, context: HandlerContext) -> None:
        try:
            context.system.aggregate(Shelf, "other").ask(Stock(amount=1), wait_for="plain").get(timeout=20)
        except WaitsForItself as error:
            errors.append(error)

    with of(None, HandlerSpec("plain", handle, event_type=Stocked)) as system:
        system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="plain").get(timeout=20)
        (error,) = errors
        assert "plain -> plain" in str(error)


async def test_two_handlers_that_wait_for_each_other_are_told_who_waits_for_whom() -> None:
    errors: list[Exception] = []
    both = asyncio.Barrier(2)

    def waits_for(other: str) -> Any:
        async def handle(event: Stocked, context: HandlerContext) -> None:
            if event.aggregate_id == "a":
                await both.wait()
                try:
                    await context.system.aggregate(Shelf, "b").ask(Stock(amount=1), wait_for=other)
                except WaitsForItself as error:
                    errors.append(error)

        return handle

    specs = [HandlerSpec("one", waits_for("two"), event_type=Stocked)]
    specs += [HandlerSpec("two", waits_for("one"), event_type=Stocked)]
    async with of(None, *specs, clock=ManualClock()) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=("one", "two"))
        (error,) = errors
        assert "one -> two -> one" in str(error) or "two -> one -> two" in str(error)


async def test_a_handler_must_not_wait_for_one_of_lower_priority_which_waits_for_it() -> None:
    errors: list[Exception] = []

    async def first(event: Stocked, context: HandlerContext) -> None:
        errors.append(await error_of(lambda: _asked(context.system.aggregate(Shelf, "b"), "second")))

    async def second(event: Stocked) -> None: ...

    specs = [HandlerSpec("first", first, event_type=Stocked, priority=EventPriority.HIGH)]
    specs += [HandlerSpec("second", second, event_type=Stocked, priority=EventPriority.LOW)]
    async with of(None, *specs, clock=ManualClock()) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for=("first", "second"))
        (error,) = errors
        assert "lower priority" in str(error)
        assert "first -> second -> first" in str(error)


async def test_a_handler_may_wait_for_another_that_does_not_wait_for_it() -> None:
    seen: list[int] = []

    async def first(event: Stocked, context: HandlerContext) -> None:
        if event.aggregate_id == "a":
            await context.system.aggregate(Shelf, "b").ask(Stock(amount=2), wait_for="second")
            seen.append(3)

    async def second(event: Stocked) -> None:
        seen.append(event.amount)

    specs = [
        HandlerSpec("first", first, event_type=Stocked),
        HandlerSpec("second", second, event_type=Stocked),
    ]
    async with of(None, *specs, clock=ManualClock()) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="first")
        assert seen == [1, 2, 3]


class Asks(Actor):
    """Does what it is told, on behalf of its asker."""

    async def on_receive(self, message: Callable[[], Any]) -> Any:
        return await error_of(message)


async def test_a_circle_that_leads_through_an_actor_is_found_for_waits_and_for_settled() -> None:
    errors: list[Exception] = []

    async def handle(event: Stocked, context: HandlerContext) -> None:
        asks = context.system.actor("asks", Asks)
        errors.append(await asks.ask(lambda: _asked(running.aggregate(Shelf, "b"), "handler"), block=False))
        errors.append(await asks.ask(lambda: running.wait_for("handler", 1), block=False))
        errors.append(await asks.ask(lambda: running.settled(20), block=False))

    running = of(None, HandlerSpec("handler", handle, event_type=Stocked))
    async with running:
        await running.spawn(Asks, name="asks")
        await running.aggregate(Shelf, "a").ask(Stock(amount=1), wait_for="handler")
        assert len(errors) == 3
        assert all("handler" in str(error) and " -> " in str(error) for error in errors), errors
        assert not any(isinstance(error, NotHandled) for error in errors)


# --- positions and tokens ----------------------------------------------------------------------------------


async def test_tokens_of_several_places_are_waited_for_together() -> None:
    async with of(None, Amounts) as system:
        replies = [system.aggregate(Shelf, name).ask(Stock(amount=1)) for name in "abc"]
        for reply in replies:
            await reply
        await system.wait_for(Amounts, ", ".join(reply.token or "" for reply in replies))
        assert [await system.view(Amounts).get(name) for name in "abc"] == [1, 1, 1]


@pytest.mark.parametrize(
    "position",
    ["", "garbage", "1", "1.zz", "0.000000000000", "99999999999999999999.000000000000", "1.000000000000",
     "2.000000000000", ",", "1.000000000000,", "\u0661.000000000000", 0, -1, 2, 2**63, True, None, 1.0],
    ids=repr,
)  # fmt: skip
async def test_what_is_no_position_of_the_store_is_refused_and_says_why(position: Any) -> None:
    async with of(None, Amounts) as system:
        await system.aggregate(Shelf, "a").ask(Stock(amount=1))
        with pytest.raises(InvalidPosition, match="is not a position in this store"):
            await system.wait_for(Amounts, position)


async def test_the_token_of_another_store_is_refused() -> None:
    async with of(None, Amounts) as one, of(None, Amounts, name="two") as two:
        tokens = []
        for system in (one, two):
            reply = system.aggregate(Shelf, "a").ask(Stock(amount=1))
            await reply
            tokens.append(reply.token or "")
        await one.wait_for(Amounts, tokens[0])
        with pytest.raises(InvalidPosition, match="another store"):
            await one.wait_for(Amounts, tokens[1])
