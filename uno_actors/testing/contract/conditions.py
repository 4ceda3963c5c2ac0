"""Appends that rest on more than one stream."""

import asyncio
from typing import Annotated
from uuid import UUID

from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.domain.tags import Tag
from uno_actors.errors import (
    AppendConditionFailed,
    ConcurrencyConflict,
    InvalidNumber,
    InvalidQuery,
    SeveralLogs,
)
from uno_actors.store.codec import to_record
from uno_actors.store.conditions import EventQuery, Queries, condition_of
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, RecordedEvent
from uno_actors.testing.contract.expectations import (
    expect_empty,
    expect_equal,
    expect_error,
)
from uno_actors.testing.contract.store_place import MakeStore, opened
from uno_actors.topics import TopicPattern


class SeatTaken(DomainEvent):
    """An event with tags of every kind."""

    event_type: str = "uno_actors.testing.SeatTaken"
    course: Annotated[str, Tag()]
    student: Annotated[int, Tag()]
    ticket: Annotated[UUID | None, Tag()] = None
    labels: Annotated[tuple[str, ...], Tag("label")] = ()
    giver: Annotated[str | None, Tag("person")] = None
    taker: Annotated[str | None, Tag("person")] = None


class SeatFreed(DomainEvent):
    """An event of another type with one of the tags."""

    event_type: str = "uno_actors.testing.SeatFreed"
    course: Annotated[str, Tag()]


TYPES = (SeatTaken, SeatFreed)


async def _refuses_conditions(store: EventStore) -> bool:
    """Whether a store checks no conditions, or its events have no one order; then it must say so."""
    unless = EventQuery(SeatFreed)
    refused = store.append(SeatFreed(course="go"), unless=unless)
    if not store.checks_conditions:
        await expect_error(InvalidQuery, refused, "a condition in a store that checks none")
        return True
    if len(await store.last_positions()) == 1:
        refused.close()
        return False
    await expect_error(SeveralLogs, refused, "a condition in a store with several logs")
    await expect_error(SeveralLogs, store.select(unless), "a selection in a store with several logs")
    return True


async def _positions(store: EventStore, query: EventQuery | LogFilter, after: int = 0) -> list[int]:
    return [position for position, _ in (await store.select(query, after=after)).events]


async def an_append_may_rest_on_any_events(make_store: MakeStore) -> None:
    """An append is refused if its query selects an event after its position, and the error names the event."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return
        of_go = EventQuery(SeatTaken, SeatFreed, tags={"course": "go"})
        (first,) = await store.append(SeatTaken(course="go", student=1), unless=of_go)
        await store.append(
            SeatTaken(course="c", student=1), unless=EventQuery(SeatTaken, tags={"course": "c"})
        )
        failed = await expect_error(
            AppendConditionFailed,
            store.append(SeatFreed(course="go"), unless=of_go),
            "an event stands against it",
        )
        assert isinstance(failed, AppendConditionFailed)
        expect_equal([each.position for each in failed.events], [first.position], "what stands against it")
        expect_equal([each.event_id for each in failed.events], [first.event.event_id], "its id")
        selected = await store.select(of_go)
        expect_equal([each.position for each in selected.events], [first.position], "what is selected")
        expect_equal(selected.position, await store.last_position(), "the position of a selection")
        (second,) = await store.append(SeatFreed(course="go"), unless=of_go, after=selected.position)
        late = store.append(SeatFreed(course="go"), unless=of_go, after=selected.position)
        failed = await expect_error(AppendConditionFailed, late, "another one was faster")
        assert isinstance(failed, AppendConditionFailed)
        expect_equal([each.position for each in failed.events], [second.position], "what came in between")
        expect_equal(await store.last_position(), second.position, "the end of the log")


async def events_are_selected_by_types_tags_and_topics(make_store: MakeStore) -> None:
    """A query selects by all that it names; several select what one of them does."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return
        ticket = UUID(int=7)
        await store.append(
            SeatTaken(course="go", student=1, topic="seats.go.taken"),
            SeatTaken(course="go", student=2, topic="seats.go", ticket=ticket),
            SeatTaken(course="c", student=1, labels=("red", "blue"), aggregate_id="x", aggregate_type="X"),
            SeatFreed(course="go", topic="seats.go.freed"),
            SeatTaken(course="d", student=3, giver="ann", taker="bob", topic="seats.d.taken"),
        )
        for query, wanted in {
            EventQuery(SeatTaken): [1, 2, 3, 5],
            EventQuery("uno_actors.testing.SeatFreed"): [4],
            EventQuery(SeatTaken, tags={"course": "go"}): [1, 2],
            EventQuery(SeatTaken, SeatFreed, tags={"course": "go"}): [1, 2, 4],
            EventQuery(SeatTaken, tags={"course": "go", "student": 1}): [1],
            EventQuery(SeatTaken, tags={"student": 1}): [1, 3],
            EventQuery(SeatTaken, tags={"ticket": ticket}): [2],
            EventQuery(SeatTaken, tags={"ticket": str(ticket)}): [2],
            EventQuery(SeatTaken, tags={"label": "blue"}): [3],
            EventQuery(SeatTaken, tags={"person": "ann"}): [5],
            EventQuery(SeatTaken, tags={"person": "bob"}): [5],
            EventQuery(SeatTaken, tags={"course": "g"}): [],
            EventQuery(topic="seats.go"): [2],
            EventQuery(topic="seats.>"): [1, 2, 4, 5],
            EventQuery(topic="seats.go.*"): [1, 4],
            EventQuery(topic="seats.*.taken"): [1, 5],
            EventQuery(SeatTaken, topic="*.go.>"): [1],
            EventQuery(SeatTaken, tags={"course": "go"}, topic="seats.go.>"): [1],
        }.items():  # fmt: skip
            expect_equal(await _positions(store, query), wanted, f"what {query!r} selects")
            expect_equal(
                await _positions(store, query, 2), [n for n in wanted if n > 2], f"{query!r} after 2"
            )
            await _expect_condition(store, query, wanted)
        of_x = LogFilter(TopicPattern("seats.>"), aggregate_type="X")
        expect_equal(await _positions(store, of_x), [], "the events of one aggregate type")
        either = LogFilter((TopicPattern("seats.go"), TopicPattern("seats.*.taken")))
        expect_equal(await _positions(store, either), [1, 2, 5], "the events of one of two topics")
        both = [EventQuery(SeatFreed), EventQuery(SeatTaken, tags={"student": 3})]
        found = [position for position, _ in (await store.select(both)).events]
        expect_equal(found, [4, 5], "what one of two queries selects")


async def _expect_condition(store: EventStore, query: EventQuery, wanted: list[int]) -> None:
    """Ask for the append of an event that stands in the way of nothing, after the last selected one and before it."""
    last = wanted[-1] if wanted else 0
    end = await store.last_position()
    if last:
        condition = condition_of(query, last - 1, store.event_registry)
        (outcome,) = await store.commit([Append((), condition=condition)])
        if not isinstance(outcome, AppendConditionFailed):
            raise AssertionError(f"{query!r} after {last - 1} must refuse, found {outcome!r}")
        expect_equal([each.position for each in outcome.events], [last], f"what stands against {query!r}")
    (outcome,) = await store.commit([Append((), condition=condition_of(query, last, store.event_registry))])
    expect_equal(type(outcome), Appended, f"the outcome of {query!r} after {last}")
    expect_equal(await store.last_position(), end, "the end of the log")


async def conditions_of_one_commit_see_each_other(make_store: MakeStore) -> None:
    """In one commit a condition is checked against what the requests before it record, and against nothing else."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return

        def request(event: DomainEvent, query: EventQuery | None) -> Append:
            condition = None if query is None else condition_of(query, 0, store.event_registry)
            return Append((to_record(event),), condition=condition)

        def taken(course: str) -> SeatTaken:
            return SeatTaken(course=course, student=1)

        def of(course: str) -> EventQuery:
            return EventQuery(SeatTaken, tags={"course": course})

        await store.append(taken("before"))  # so that the first conditions of a log with events come together
        outcomes = await store.commit(
            [
                request(taken("a"), None),
                request(taken("a"), of("a")),  # refused
                request(taken("b"), of("b")),
                request(taken("b"), of("b")),  # refused
                request(taken("c"), of("d")),
                request(taken("d"), of("d")),
                request(SeatFreed(course="e"), of("e")),
                request(taken("e"), of("e")),
                request(taken("f"), EventQuery(SeatFreed)),  # refused
            ]
        )
        recorded = [isinstance(outcome, Appended) for outcome in outcomes]
        wanted = [True, False, True, False, True, True, True, True, False]
        expect_equal(recorded, wanted, "which requests are recorded")
        log = [event async for _, event in store.read_all()]
        courses = [each.course for each in log if isinstance(each, (SeatTaken, SeatFreed))]
        expect_equal(courses, ["before", "a", "b", "c", "d", "e", "e"], "the log")


async def a_condition_and_a_version_must_both_hold(make_store: MakeStore) -> None:
    """With an expected version too, an append is refused if either does not hold, and then records nothing."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return

        async def append(course: str, version: int) -> list[RecordedEvent]:
            event = SeatTaken(course=course, student=1, aggregate_id="s", aggregate_type="Student")
            unless = EventQuery(SeatTaken, tags={"course": course})
            return await store.append(event, expected_version=version, unless=unless)

        await append("a", 0)
        await expect_error(AppendConditionFailed, append("a", 1), "the version alone holds")
        await expect_error(ConcurrencyConflict, append("b", 0), "the condition alone holds")
        (recorded,) = await append("b", 1)
        expect_equal(recorded.event.aggregate_version, 2, "the version")
        expect_equal(await store.last_position(), 2, "the end of the log")


async def one_of_many_conditional_appends_wins(make_store: MakeStore) -> None:
    """Of many appends at once that exclude each other, one is recorded for each value."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return

        async def take(number: int) -> bool:
            course = str(number % 7)
            unless = EventQuery(SeatTaken, tags={"course": course})
            try:
                await store.append(SeatTaken(course=course, student=number), unless=unless)
            except AppendConditionFailed:
                return False
            await store.append(SeatFreed(course=course))  # others, without a condition, in between
            return True

        won = await asyncio.gather(*(take(number) for number in range(140)))
        expect_equal(sum(won), 7, "how many were recorded")
        for course in map(str, range(7)):
            query = EventQuery(SeatTaken, tags={"course": course})
            expect_equal(len(await _positions(store, query)), 1, f"events of {course}")


async def old_events_stand_against_conditions(make_store: MakeStore) -> None:
    """Events that were recorded before the first condition count, however many, and after the store is reopened."""
    async with make_store() as place:
        registry = EventRegistry(TYPES)
        store = await place.open(registry)
        try:
            if await _refuses_conditions(store):
                return
            early = [SeatTaken(course=f"c{number}", student=number) for number in range(2500)]
            await store.append(*early)
            unless = EventQuery(SeatTaken, tags={"course": "c7"})
            await expect_error(
                AppendConditionFailed, store.append(SeatFreed(course="c7"), unless=unless), "an early event"
            )
            await store.append(SeatTaken(course="last", student=0))
            if place.durable:
                await store.close()
                store = await place.open(registry)
            await store.append(SeatTaken(course="later", student=0))
            for course in ("c0", "c2499", "last", "later"):
                unless = EventQuery(SeatTaken, tags={"course": course})
                await expect_error(
                    AppendConditionFailed,
                    store.append(SeatFreed(course=course), unless=unless),
                    f"of {course}",
                )
            await store.append(
                SeatFreed(course="new"), unless=EventQuery(SeatTaken, tags={"course": "c2500"})
            )
        finally:
            await store.close()


async def impossible_conditions_are_refused(make_store: MakeStore) -> None:
    """A query that cannot be answered is refused with the remedy, and nothing is recorded."""
    async with opened(make_store, *TYPES) as store:
        if await _refuses_conditions(store):
            return
        event = SeatFreed(course="go")
        impossible: list[Queries] = [
            EventQuery(SeatFreed, tags={"student": 1}),
            EventQuery(SeatTaken, tags={"student": "1"}),
            EventQuery(SeatTaken, tags={"ticket": "none"}),
            LogFilter(),
            LogFilter(aggregate_type="X"),
            LogFilter(TopicPattern("*.go")),
            [],
            SeatFreed,  # type: ignore[list-item]  # an event class, and a topic, in the place of a query
            "seats.>",  # type: ignore[list-item]
            5,  # type: ignore[list-item]
        ]
        for unless in impossible:
            await expect_error(InvalidQuery, store.append(event, unless=unless), f"unless={unless!r}")
        beyond = store.append(event, unless=EventQuery(SeatFreed), after=1)
        await expect_error(InvalidQuery, beyond, "a position beyond the end of the log")
        await expect_error(ValueError, store.append(event, after=1), "a position without a query")
        selection = await store.select(EventQuery(SeatFreed))
        unfit = store.append(event, unless=EventQuery(SeatFreed), after=selection)  # type: ignore[arg-type]
        await expect_error(InvalidNumber, unfit, "a selection in the place of its position")
        negative = store.append(event, unless=EventQuery(SeatFreed), after=-1)
        await expect_error(ValueError, negative, "a negative position")
        await expect_empty(store)
