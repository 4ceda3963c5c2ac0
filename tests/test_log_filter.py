"""Which records a filter selects: as a table, and against a slow and simple model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import AggregateRoot, DomainEvent, EventRegistry, InvalidAggregateId, InvalidTopic
from uno_actors.store.codec import Record, StreamId, to_record
from uno_actors.store.log_filter import EVERYTHING, LogFilter, recorded_names
from uno_actors.topics import TopicPattern
from uno_stores import InMemoryEventStore


class Filed(DomainEvent):
    pass


class FiledTwice(Filed):
    pass


class Other(DomainEvent):
    event_type: str = "other.Name"


class Cabinet(AggregateRoot):
    aggregate_type = "cabinet"


REGISTRY = EventRegistry([Filed, FiledTwice, Other])


def record(**header: Any) -> Record:
    return to_record(DomainEvent())._replace(**header)


TABLE = [
    # filter, header, whether it matches
    (LogFilter(), {}, True),
    (LogFilter(topic=TopicPattern("a.*")), {"topic": "a.b"}, True),
    (LogFilter(topic=TopicPattern("a.*")), {"topic": "a.b.c"}, False),
    (LogFilter(topic=TopicPattern(">")), {"topic": "a"}, True),
    (LogFilter(topic=TopicPattern(">")), {"topic": None}, False),  # no topic is not any topic
    (LogFilter(topic=(TopicPattern("b"), TopicPattern("a.*"))), {"topic": "a.b"}, True),
    (LogFilter(topic=(TopicPattern("b"), TopicPattern("a.*"))), {"topic": "c"}, False),
    (LogFilter(topic=()), {"topic": "a"}, False),  # none of no patterns
    (LogFilter(event_types=frozenset({"A", "B"})), {"event_type": "B"}, True),
    (LogFilter(event_types=frozenset({"A", "B"})), {"event_type": "b"}, False),
    (LogFilter(event_types=frozenset()), {"event_type": "A"}, False),  # a class that nothing is recorded as
    (LogFilter(aggregate_type="Account"), {"aggregate_type": "Account"}, True),
    (LogFilter(aggregate_type="Account"), {"aggregate_type": "Accounts"}, False),
    (LogFilter(aggregate_type="Account"), {"aggregate_type": None}, False),
    (LogFilter(aggregate_id="a"), {"aggregate_id": "a"}, True),
    (LogFilter(aggregate_id="a"), {"aggregate_id": "ab"}, False),
    (LogFilter(aggregate_id="a"), {"aggregate_id": None}, False),
    (LogFilter(correlation_id="c"), {"correlation_id": "c"}, True),
    (LogFilter(correlation_id="c"), {"correlation_id": None, "event_id": "c", "causation_id": "c"}, False),
    (LogFilter(correlation_id="c", aggregate_type="A"), {"correlation_id": "c", "aggregate_type": "A"}, True),
    (
        LogFilter(correlation_id="c", aggregate_type="A"),
        {"correlation_id": "c", "aggregate_type": "B"},
        False,
    ),
]


@pytest.mark.parametrize(("matching", "header", "wanted"), TABLE)
def test_filter_selects_by_the_header(matching: LogFilter, header: dict[str, Any], wanted: bool) -> None:
    assert matching.matches(record(**header)) is wanted


NAMES = st.sampled_from(["A", "B", "C"])
TOPICS = st.sampled_from(["a", "a.b", "a.b.c", "b.b"])
PATTERNS = {"a": {"a"}, "a.*": {"a.b"}, "a.>": {"a.b", "a.b.c"}, "*.b": {"a.b", "b.b"}, "*.*.*": {"a.b.c"}}


@given(
    st.none() | st.sampled_from(sorted(PATTERNS)),
    st.none() | st.frozensets(NAMES),
    st.none() | NAMES,
    st.none() | NAMES,
    st.lists(st.tuples(st.none() | TOPICS, NAMES, st.none() | NAMES, st.none() | NAMES)),
)
def test_a_filter_selects_what_all_of_its_parts_select(
    pattern: str | None,
    types: frozenset[str] | None,
    aggregate: str | None,
    correlation: str | None,
    headers: list[tuple[Any, ...]],
) -> None:
    selected = list(headers)
    if pattern is not None:
        selected = [header for header in selected if header[0] in PATTERNS[pattern]]
    if types is not None:
        selected = [header for header in selected if header[1] in types]
    if aggregate is not None:
        selected = [header for header in selected if header[2] == aggregate]
    if correlation is not None:
        selected = [header for header in selected if header[3] == correlation]
    matching = LogFilter(None if pattern is None else TopicPattern(pattern), types, aggregate, correlation)
    names = ("topic", "event_type", "aggregate_type", "correlation_id")
    assert [h for h in headers if matching.matches(record(**dict(zip(names, h, strict=True))))] == selected


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Filed, {"Filed", "FiledTwice"}),
        (FiledTwice, {"FiledTwice"}),
        (Other, {"other.Name"}),
        ("Unknown", {"Unknown"}),
        (["Unknown", FiledTwice], {"Unknown", "FiledTwice"}),
        ((), set()),
    ],
)
def test_a_class_stands_for_the_names_of_its_subclasses_too(wanted: Any, names: set[str]) -> None:
    assert recorded_names(wanted, REGISTRY) == names


async def test_a_store_takes_patterns_and_classes_or_their_text() -> None:
    async with InMemoryEventStore(REGISTRY) as store:
        assert store.log_filter() == EVERYTHING
        by_text = store.log_filter("a.*", ["Filed", "FiledTwice"], "cabinet", "c")
        assert by_text == store.log_filter(TopicPattern("a.*"), Filed, Cabinet, "c")
        several = store.log_filter(["a.*", TopicPattern("b")], aggregate_type=Cabinet, aggregate_id="x")
        assert several.topics == (TopicPattern("a.*"), TopicPattern("b"))
        assert several.stream == StreamId("cabinet", "x")
        with pytest.raises(InvalidTopic):
            store.log_filter(["a.*", "b..c"])
        with pytest.raises(InvalidAggregateId):
            store.log_filter(aggregate_id="")
        assert by_text == LogFilter(TopicPattern("a.*"), frozenset({"Filed", "FiledTwice"}), "cabinet", "c")


async def test_an_invalid_pattern_is_refused() -> None:
    async with InMemoryEventStore(REGISTRY) as store:
        with pytest.raises(InvalidTopic, match="'>' must be the last token"):
            await anext(aiter(store.read_all(topic_pattern=">.a")), None)
        with pytest.raises(InvalidTopic, match="empty token"):
            await anext(aiter(store.subscribe(topic_pattern="a..b")), None)
