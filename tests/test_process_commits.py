"""What the steps of a process cost: a reaction and the commands that it sends share a commit."""

import asyncio
import pydoc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import all_see, system_on
from tests.faults import no_aggregate_is_here
from tests.machine import patience
from tests.postgres import postgres
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    ConcurrencyConflict,
    DomainEvent,
    EventStore,
    Observer,
    ProcessManager,
    Refusal,
    UnknownCommand,
    UnoError,
    handles,
    open_store,
    reacts,
)
from uno_actors.aggregates.joint import Entry, Joint, Linger, Sorted, sort
from uno_actors.processes.messages import Reacted
from uno_actors.store.codec import to_record
from uno_actors.store.logs import log_of_stream
from uno_actors.store.records import Append, Appended
from uno_actors.testing import MemoryNetwork
from uno_stores import InMemoryEventStore


class CheckOut(Command[None]):
    book: str


class TakeBook(Command[None]):
    order: str


class Charge(Command[None]):
    pass


class Dispatch(Command[None]):
    pass


class CheckedOut(DomainEvent):
    book: str


class BookTaken(DomainEvent):
    order: str


class Charged(DomainEvent):
    pass


class Dispatched(DomainEvent):
    pass


class Basket(AggregateRoot):
    @handles
    def check_out(self, command: CheckOut) -> None:
        self.register_event(CheckedOut(book=command.book))

    def apply_checked_out(self, event: CheckedOut) -> None: ...


class Warehouse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.taken = 0

    @handles
    def take(self, command: TakeBook) -> None:
        if self.id == "none left":
            raise CommandRejected("none left")
        self.register_event(BookTaken(order=command.order))

    def apply_book_taken(self, event: BookTaken) -> None:
        self.taken += 1


class Card(AggregateRoot):
    @handles
    def charge(self, command: Charge) -> None:
        self.register_event(Charged())

    def apply_charged(self, event: Charged) -> None: ...


class Van(AggregateRoot):
    @handles
    def dispatch(self, command: Dispatch) -> None:
        self.register_event(Dispatched())

    def apply_dispatched(self, event: Dispatched) -> None: ...


class Buying(ProcessManager):
    sends_to = (Warehouse, Card, Van)

    @reacts(starts=True, by="aggregate_id")
    def take(self, event: CheckedOut) -> None:
        self.send(Warehouse, event.book, TakeBook(order=self.id))

    @reacts(by="order")
    def charge(self, event: BookTaken) -> None:
        self.send(Card, self.id, Charge())

    @reacts(by="aggregate_id")
    def ship(self, event: Charged) -> None:
        self.send(Van, self.id, Dispatch())

    @reacts(by="aggregate_id")
    def finish(self, event: Dispatched) -> None:
        self.end()

    @reacts
    def give_up(self, refusal: Refusal[TakeBook]) -> None:
        self.end()


TYPES = [Basket, Warehouse, Card, Van, Buying]


REACTED = "uno_actors.Reacted"


@asynccontextmanager
async def shop(store: EventStore | str, *observers: Observer, **options: Any) -> AsyncIterator[ActorSystem]:
    handler = Buying.handler(start="earliest", **options)
    async with ActorSystem(store, aggregates=TYPES, handlers=[handler], observers=observers) as system:
        yield system


async def types_of(system: ActorSystem) -> list[str]:
    return [event.event_type async for _, event in system.store.read_all() if not isinstance(event, Reacted)]


CHECKOUT = ["CheckedOut", "BookTaken", "Charged", "Dispatched"]


URLS = {
    "memory": "memory:",
    "lmdb": "lmdb:{}/store",
    "sqlite": "sqlite+aiosqlite:///{}/store",
    "postgres": "",
}


@pytest.fixture(params=URLS)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found = URLS[request.param].format(tmp_path)
    return found or await postgres().new_url()


@pytest.fixture(autouse=True)
def what_follows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has other work to do."""
    for held in (Joint, Linger):
        monkeypatch.setattr(held, "seconds", patience(held.seconds))


class Groups(Observer):
    """The events of each commit, as the store was asked for it."""

    def __init__(self) -> None:
        self.all: list[list[str]] = []
        self.appends: list[list[Any]] = []

    def append_ended(self, group: Any, outcomes: Any, seconds: float) -> None:
        self.appends.append([request.records for request in group.appends])
        self.all.append([record.event_type for request in group.appends for record in request.records])


async def test_a_checkout_takes_four_commits_until_it_is_shipped(url: str) -> None:
    """The order; and three times a reaction with its command. With the fifth the process ends."""
    groups = Groups()
    async with shop(url, groups) as system:
        await system.aggregate(Basket, "1").ask(CheckOut(book="dune"))
        await system.settled()
        assert groups.all == [
            ["CheckedOut"],
            [REACTED, "BookTaken"],
            [REACTED, REACTED, "Charged"],
            [REACTED, REACTED, "Dispatched"],
            [REACTED, "uno_actors.ProcessEnded", REACTED],
        ]
        assert system.statistics().commits == 5
        assert await system.store.dead_letters() == []


async def test_an_order_that_cannot_be_filled_takes_three_commits(url: str) -> None:
    """The order, the reaction alone, since the refusal leaves no event, and the end of the process."""
    groups = Groups()
    async with shop(url, groups) as system:
        await system.aggregate(Basket, "1").ask(CheckOut(book="none left"))
        await system.settled()
        ended = [REACTED, "uno_actors.ProcessEnded", REACTED]
        assert sorted(map(len, groups.all)) in ([1, 1, 1, 2], [1, 1, 3]), ended
        assert await types_of(system) == ["CheckedOut", "uno_actors.ProcessEnded"]


async def test_processes_that_run_side_by_side_share_commits(url: str) -> None:
    orders = 40
    groups = Groups()
    async with shop(url, groups) as system:
        await asyncio.gather(
            *(system.aggregate(Basket, f"{n}").ask(CheckOut(book="dune")) for n in range(orders))
        )
        await system.settled()
        assert sorted(await types_of(system)) == sorted([*CHECKOUT, "uno_actors.ProcessEnded"] * orders)
        assert system.statistics().commits < orders, "one book, and one shelf in the way of all"


# --- several writers ---


async def test_two_handlers_of_one_process_manager_that_race_send_each_command_once(url: str) -> None:
    """As two nodes that both believe that they have the lease: what one decides on a state of the past is dropped."""
    orders = 25
    async with open_store(url) as store:
        options: dict[str, Any] = {"aggregates": TYPES, "remember_commands": 8}
        one = ActorSystem(
            store, handlers=[Buying.handler("one", start="earliest", max_attempts=1000)], name="a", **options
        )
        two = ActorSystem(
            store, handlers=[Buying.handler("two", start="earliest", max_attempts=1000)], name="b", **options
        )
        async with one, two:
            for number in range(orders):
                await one.aggregate(Basket, f"{number}").ask(CheckOut(book=f"book-{number % 3}"))
            await one.settled(120)
            await two.settled(120)
            await one.settled(120)
            assert sorted(await types_of(one)) == sorted([*CHECKOUT, "uno_actors.ProcessEnded"] * orders)
            assert await store.dead_letters() == []
            assert one.statistics().reruns + two.statistics().reruns > 0, "they did race"


class Outpaced(InMemoryEventStore):
    """Before the first append of a process together with what follows, another writer adds to one of the streams."""

    def __init__(self, stream: str) -> None:
        super().__init__()
        self.met = 0
        self._stream = stream

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        for request in requests:
            streams = {record.stream for record in request.records}
            if len(streams) > 1 and not self.met:
                self.met = 1
                (stream,) = [
                    each for each in streams if each is not None and each.aggregate_type == self._stream
                ]
                other = BookNoted(
                    aggregate_id=stream.aggregate_id,
                    aggregate_type=stream.aggregate_type,
                    aggregate_version=await self.last_version(stream) + 1,
                )
                await super().commit([Append((to_record(other),))])
        return await super().commit(requests)


class BookNoted(DomainEvent):
    """What another writer adds."""


@pytest.mark.parametrize("outpaced", ["Noting", "Shelf2"])
async def test_a_reaction_that_met_another_writer_is_decided_again_before_its_commands_take_effect(
    outpaced: str,
) -> None:
    """The process decides on what was recorded in the meantime, and what it had decided before never takes effect."""

    class Shelf2(AggregateRoot):
        @handles
        def take(self, command: TakeBook) -> None:
            self.register_event(BookTaken(order=command.order))

        def apply_book_taken(self, event: BookTaken) -> None: ...

        def apply_book_noted(self, event: BookNoted) -> None: ...

    class Noting(ProcessManager):
        sends_to = (Shelf2,)

        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.noted = 0

        @reacts(by="aggregate_id")
        def take(self, event: CheckedOut) -> None:
            self.send(Shelf2, event.book, TakeBook(order=f"noted {self.noted}"))

        def apply_book_noted(self, event: BookNoted) -> None:
            self.noted += 1

    store = Outpaced(outpaced)
    handler = Noting.handler(start="earliest")
    async with ActorSystem(store, aggregates=[Basket, Shelf2, Noting], handlers=[handler]) as system:
        bystanders = [
            system.aggregate(Shelf2, "dune").ask(TakeBook(order=f"bystander {number}")) for number in range(3)
        ]
        await system.aggregate(Basket, "1").ask(CheckOut(book="dune"))
        await asyncio.gather(*bystanders)
        await system.settled()
        assert store.met
        assert system.statistics().handlers["Noting"].failures == 0
        taken = [event.order async for _, event in store.read_all() if isinstance(event, BookTaken)]
        expected = f"noted {int(outpaced == 'Noting')}"
        assert sorted(taken) == ["bystander 0", "bystander 1", "bystander 2", expected]
        reacted = await store.get_events("1", aggregate_type="Noting")
        sent = [each for event in reacted if isinstance(event, Reacted) for each in event.sent]
        assert [expected in each.fields for each in sent] == [True]


class OutpacedAlone(InMemoryEventStore):
    """Before the first append of a process, another writer adds to its stream."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        first = requests[0].records[0]
        if first.aggregate_type == "Counting" and not self.met:
            self.met = 1
            other = BookNoted(
                aggregate_id=first.aggregate_id, aggregate_type=first.aggregate_type, aggregate_version=1
            )
            await super().commit([Append((to_record(other),))])
        return await super().commit(requests)


async def test_what_was_decided_on_a_state_of_the_past_is_not_sent_to_aggregates_elsewhere_either() -> None:
    """The reaction is recorded before anything is sent to another node, and it may be another one by then."""

    class Shelf3(AggregateRoot):
        @handles
        def take(self, command: TakeBook) -> None:
            self.register_event(BookTaken(order=command.order))

        def apply_book_taken(self, event: BookTaken) -> None: ...

    class Counting(ProcessManager):
        sends_to = (Shelf3,)

        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.noted = 0

        @reacts(by="aggregate_id")
        def take(self, event: CheckedOut) -> None:
            self.send(Shelf3, event.book, TakeBook(order=f"noted {self.noted}"))

        def apply_book_noted(self, event: BookNoted) -> None:
            self.noted += 1

    store = OutpacedAlone()
    handler = Counting.handler(start="earliest")
    system = ActorSystem(store, aggregates=[Basket, Shelf3, Counting], handlers=[handler])
    with no_aggregate_is_here():
        async with system:
            await system.aggregate(Basket, "1").ask(CheckOut(book="dune"))
            await system.settled()
            assert store.met
            taken = [event.order async for _, event in store.read_all() if isinstance(event, BookTaken)]
            assert taken == ["noted 1"]
            reacted = await store.get_events("1", aggregate_type="Counting")
            sent = [each for event in reacted if isinstance(event, Reacted) for each in event.sent]
            assert ["noted 1" in each.fields for each in sent] == [True]


# --- what appends wait for ---


def entry(name: str, lead: Joint | None = None, *follows: Joint) -> Entry:
    return Entry(Append((to_record(BookNoted(aggregate_id=name)),)), print, lead, follows)


def names(entries: list[Entry]) -> list[str | None]:
    return [each.request.records[0].aggregate_id for each in entries]


async def test_appends_that_follow_others_are_bundled_with_them() -> None:
    one, two, done, failed, given_up = (Joint() for _ in range(5))
    done.outcome = Appended(range(1), ())
    failed.outcome = ConcurrencyConflict("x", 1, 2)
    group = [
        entry("alone"),
        entry("a", one),
        entry("b", two),
        entry("after a", None, one),
        entry("after what is recorded", None, done),
        entry("after what failed", None, done, failed),
        entry("after what never came", None, given_up),
        entry("after both", None, one, two),
    ]
    bundles, refused, later = sort(group)
    assert [names(each) for each in bundles] == [
        ["alone"], ["after what is recorded"], ["a", "after a", "b", "after both"],
    ]  # fmt: skip
    assert names(refused) == ["after what failed", "after what never came"]
    assert given_up.has_failed
    assert not later


async def test_appends_of_a_bundle_that_was_refused_are_recorded_one_after_the_other() -> None:
    one, two = Joint(), Joint()
    one.apart = True
    first, second, third = entry("a", one), entry("b", two, one), entry("c", None, two)
    assert sort([first, second, third]) == Sorted([[first]], [], [second, third])
    one.outcome = Appended(range(1), ())
    assert sort([second, third]) == Sorted([[second, third]], [], [])


# --- in words of the program ---


def test_what_users_see_speaks_of_their_methods() -> None:
    shown = pydoc.render_doc(Buying, renderer=pydoc.plaintext)
    for internal in (
        "HasReacted",
        "AllSent",
        "Outgoing",
        "Step",
        "_react",
        "apply_reacted",
        "ProcessHandler",
    ):
        assert internal not in shown
    assert "ship(self, event" in shown
    assert "Buying.handler()" in repr(Buying.handler())
    with pytest.raises(UnknownCommand, match="Buying does not handle Charge; it handles: none"):
        Buying("1").handle(Charge())


async def test_commands_to_processes_have_the_names_of_the_methods_in_statistics_and_errors() -> None:
    class Names(Observer):
        def __init__(self) -> None:
            self.sent: list[str] = []

        def command_sent(self, stream: Any, command: Any, asked: bool) -> None:
            self.sent.append(f"{stream.aggregate_type}.{type(command).__name__}")

    names = Names()
    async with shop("memory:", names) as system:
        await system.aggregate(Basket, "1").ask(CheckOut(book="dune"))
        await system.settled()
    assert names.sent == [
        "Basket.CheckOut", "Buying.take", "Warehouse.TakeBook", "Buying.take", "Buying.charge", "Card.Charge",
        "Buying.charge", "Buying.ship", "Van.Dispatch", "Buying.ship", "Buying.finish",
    ]  # fmt: skip


# --- several logs, several nodes ---


async def test_streams_of_several_logs_are_not_recorded_together() -> None:
    """There is one writer for each log. The reaction comes first, and each command takes effect once."""
    groups = Groups()
    async with shop(f"{await postgres().new_url()}&logs=3", groups, partitioned=True) as system:
        for number in range(12):
            await system.aggregate(Basket, f"{number}").ask(CheckOut(book=f"book-{number}"))
        await system.settled()
        assert sorted(await types_of_logs(system)) == sorted([*CHECKOUT, "uno_actors.ProcessEnded"] * 12)
        assert await system.store.dead_letters() == []
    for appends in groups.appends:
        for records in appends:
            assert len({log_of_stream(record.stream, 3) for record in records}) == 1


async def types_of_logs(system: ActorSystem) -> list[str]:
    found = [recorded.event.event_type async for recorded in system.store.read_all()]
    return [name for name in found if name != REACTED]


async def test_commands_to_aggregates_of_other_nodes_are_sent_once_the_reaction_is_recorded() -> None:
    store, network = InMemoryEventStore(), MemoryNetwork()
    options: dict[str, Any] = {"aggregates": TYPES}
    handler = Buying.handler(start="earliest")
    async with (
        system_on(store, network, "a", handlers=[handler], **options) as one,
        system_on(store, network, "b", **options) as two,
    ):
        await all_see([one, two])
        for number in range(20):
            await one.aggregate(Basket, f"{number}").ask(CheckOut(book=f"book-{number}"))
        await one.settled()
        await two.settled()
        await one.settled()
        assert sorted(await types_of(one)) == sorted([*CHECKOUT, "uno_actors.ProcessEnded"] * 20)
        assert one.cluster.statistics().sent > 5
        assert await store.dead_letters() == []
    recorded = [*store.records]
    for place, record in enumerate(recorded):
        if record.event_type == "Charged":
            before = [each.payload for each in recorded[:place] if each.event_type == REACTED]
            assert any((record.answered or "?").removesuffix(".0").encode() in payload for payload in before)
