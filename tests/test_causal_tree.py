"""The events of one correlation id as a tree by cause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import ActorSystem, AggregateRoot, Command, DomainEvent, EventRegistry, handles, subscribe
from uno_actors.store.causal_tree import CausalNode, CausalTree, causal_tree
from uno_actors.store.codec import Record, to_record
from uno_stores import InMemoryEventStore


class Order(Command[None]):
    pass


class Ship(Command[None]):
    pass


class Ordered(DomainEvent):
    pass


class Charged(DomainEvent):
    pass


class Dispatched(DomainEvent):
    pass


class Shop(AggregateRoot):
    @handles
    def order(self, command: Order) -> None:
        self.register_event(Ordered())
        self.register_event(Charged())

    @handles
    def ship(self, command: Ship) -> None:
        self.register_event(Dispatched())
        self.register_event(Dispatched())

    def apply_ordered(self, event: Ordered) -> None: ...
    def apply_charged(self, event: Charged) -> None: ...
    def apply_dispatched(self, event: Dispatched) -> None: ...


async def test_events_that_handlers_cause_stand_below_the_events_that_they_handled() -> None:
    system = ActorSystem("memory:", aggregates=[Shop], handlers=[])

    @subscribe(event_type=Charged, name="shipping")
    async def ship(event: Charged) -> None:
        await system.aggregate(Shop, "depot").ask(Ship())

    system = ActorSystem("memory:", aggregates=[Shop], handlers=[ship])
    async with system:
        for name in ("a", "b"):
            await system.aggregate(Shop, name).ask(Order(correlation_id=f"order of {name}"))
        await system.settled()
        tree = await system.store.causal_tree("order of a")
        assert len(tree) == 4
        lines = str(tree).splitlines()
        first, second, *shipped = [recorded.position for recorded in tree]
        assert lines == [
            "order of a: 4 events",
            f"├─ {first} Ordered Shop<a@1>",
            f"└─ {second} Charged Shop<a@2>",
            f"   ├─ {shipped[0]} Dispatched Shop<depot@{tree.roots[1].children[0].event.aggregate_version}>",
            f"   └─ {shipped[1]} Dispatched Shop<depot@{tree.roots[1].children[1].event.aggregate_version}>",
        ]
        assert isinstance(tree.roots[1].children[0].event, Dispatched)
        assert str(await system.store.causal_tree("nothing")) == "nothing: 0 events"
        assert await system.store.causal_tree("order of a", after=shipped[1]) == CausalTree("order of a")


def made(event_id: str, cause: str | None = None, command_cause: str | None = None) -> Record:
    record = to_record(DomainEvent(event_id=event_id, causation_id=cause))
    return record._replace(command_causation_id=command_cause)


def tree_of(*records: Record) -> CausalTree[Record]:
    return causal_tree("c", list(enumerate(records, 1)), lambda record: record)


def ids(nodes: tuple[CausalNode[Record], ...]) -> list[object]:
    return [
        (node.event.event_id, ids(node.children)) if node.children else node.event.event_id for node in nodes
    ]


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        ([], []),
        ([made("a", "outside")], ["a"]),
        ([made("a"), made("b", "a"), made("c", "b"), made("d", "a")], [("a", [("b", ["c"]), "d"])]),
        ([made("a"), made("b", "command", "a")], [("a", ["b"])]),  # through a command
        ([made("a"), made("x"), made("b", "x", "a")], ["a", ("x", ["b"])]),  # the nearer cause
        ([made("a", "a")], ["a"]),  # its own cause
        ([made("a", "b"), made("b", "a")], [("a", ["b"])]),  # each the other's
        ([made("a", "b"), made("b")], ["a", "b"]),  # no cause comes later
        ([made("a"), made("a"), made("b", "a")], [("a", ["b"]), "a"]),  # recorded twice
    ],
)
def test_an_event_stands_below_the_earlier_one_that_caused_it(
    records: list[Record], wanted: list[object]
) -> None:
    assert ids(tree_of(*records).roots) == wanted


IDS = st.sampled_from("abcdefgh")


@given(st.lists(st.builds(made, IDS, st.none() | IDS, st.none() | IDS), max_size=12))
def test_every_event_is_in_the_tree_once_whatever_the_causes_are(records: list[Record]) -> None:
    tree = tree_of(*records)
    assert sorted(node.position for node in tree) == list(range(1, len(records) + 1))
    assert len(str(tree).splitlines()) == len(records) + 1
    for node in tree:
        assert all(child.position > node.position for child in node.children)
        assert list(node.children) == sorted(node.children, key=lambda child: child.position)


def test_a_long_chain_can_be_drawn() -> None:
    tree = tree_of(made("0"), *[made(str(number), str(number - 1)) for number in range(1, 5000)])
    assert len(tree) == 5000
    assert str(tree).splitlines()[3] == "      └─ 3 DomainEvent"


async def test_an_id_cannot_control_the_terminal() -> None:
    async with InMemoryEventStore(EventRegistry([Ordered])) as store:
        event = Ordered(aggregate_id="a\x1b[2J\n", aggregate_type="Shop", correlation_id="c\x07")
        await store.append(event)
        assert str(await store.causal_tree("c\x07")) == "c\\x07: 1 event\n└─ 1 Ordered Shop<a\\x1b[2J\\n@1>"
