"""Queries: pages, ranges, filters, both directions."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import (
    AmbiguousStream,
    SeveralLogs,
)
from uno_actors.store.codec import StreamId
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, RecordedEvent
from uno_actors.testing.contract.events import Measured, Noted, measured, noted
from uno_actors.testing.contract.expectations import (
    expect_equal,
    expect_error,
    expect_in_log_order,
    in_place,
    log_of,
    starts_of,
    texts_of,
    versions_of,
)
from uno_actors.testing.contract.store_place import MakeStore, opened


async def get_events_narrows_by_version_and_limit(make_store: MakeStore) -> None:
    """`since_version` is exclusive, `limit` is the greatest number of events; neither is below 0."""
    async with opened(make_store) as store:
        await store.append(*[noted("a", str(number)) for number in range(1, 6)], noted("b", "b"))
        expect_equal(await texts_of(store, "a", since_version=0), ["1", "2", "3", "4", "5"], "since 0")
        expect_equal(await texts_of(store, "a", since_version=3), ["4", "5"], "since 3")
        expect_equal(await texts_of(store, "a", since_version=5), [], "since the last")
        expect_equal(await texts_of(store, "a", since_version=99), [], "since a version to come")
        expect_equal(await texts_of(store, "a", limit=2), ["1", "2"], "two")
        expect_equal(await texts_of(store, "a", limit=0), [], "none")
        expect_equal(await texts_of(store, "a", since_version=1, limit=2), ["2", "3"], "two since 1")
        expect_equal(await store.get_events("unknown"), [], "a stream that is not there")
        expect_equal(await texts_of(store, "a", of="Nothing"), [], "a type that is not there")
        for wrong in (-1, 2**63):
            await expect_error(ValueError, texts_of(store, "a", since_version=wrong), f"since {wrong}")
            await expect_error(ValueError, texts_of(store, "a", limit=wrong), f"limit {wrong}")
            await expect_error(ValueError, log_of(store, after=wrong), f"the log after {wrong}")
            await expect_error(ValueError, log_of(store, limit=wrong), f"the log, limit {wrong}")
            await expect_error(ValueError, anext(store.subscribe(wrong)), f"subscribe after {wrong}")
            await expect_error(ValueError, texts_of(store, "a", until_version=wrong), f"until {wrong}")
            await expect_error(ValueError, anext(store.read_all(until=wrong)), f"the log until {wrong}")


async def get_events_ends_at_a_version(make_store: MakeStore) -> None:
    """`until_version` is inclusive, in both directions, on a stream of several pages."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        await store.append(*[noted(name, str(n)) for n in range(1, size + 1) for name in ("a", "b")])
        for since, until, limit in (
            (0, 0, None),
            (0, 1, None),
            (0, PAGE, None),
            (1, PAGE + 2, None),
            (PAGE - 1, PAGE, None),
            (3, size - 1, None),
            (0, size, None),
            (0, size + 9, None),
            (7, 7, None),
            (9, 3, None),
            (2, PAGE + 5, PAGE + 1),
            (0, 9, 4),
            (0, 9, 20),
        ):
            wanted = [str(version) for version in range(since + 1, min(until, size) + 1)]
            narrowed: dict[str, Any] = {"since_version": since, "until_version": until, "limit": limit}
            expect_equal(await texts_of(store, "a", **narrowed), wanted[:limit], f"{narrowed}")
            backward = await texts_of(store, "a", backward=True, **narrowed)
            expect_equal(backward, wanted[::-1][:limit], f"{narrowed}, backward")
        expect_equal(await store.get_events("unknown", until_version=3), [], "a stream that is not there")


async def get_events_narrows_by_time(make_store: MakeStore) -> None:
    """`since_timestamp` is inclusive, takes any time zone, and a naive time is read as UTC."""
    async with opened(make_store) as store:
        noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
        minute, instant = timedelta(minutes=1), timedelta(microseconds=1)
        await store.append(*[noted("a", str(n), timestamp=noon + n * minute) for n in range(5)])
        expect_equal(await texts_of(store, "a", since_timestamp=noon + 3 * minute), ["3", "4"], "since 12:03")
        later = noon + 3 * minute + instant
        expect_equal(await texts_of(store, "a", since_timestamp=later), ["4"], "since just after 12:03")
        naive = (noon + 3 * minute).replace(tzinfo=None)
        expect_equal(await texts_of(store, "a", since_timestamp=naive), ["3", "4"], "since a naive 12:03")
        elsewhere = (noon + 4 * minute).astimezone(timezone(timedelta(hours=9)))
        expect_equal(await texts_of(store, "a", since_timestamp=elsewhere), ["4"], "since 12:04 in Tokyo")
        found = await texts_of(store, "a", since_timestamp=noon + minute, since_version=2, limit=2)
        expect_equal(found, ["2", "3"], "all of it together")


async def an_ambiguous_id_is_refused(make_store: MakeStore) -> None:
    """Asking by id alone reads the one stream of that id, or names the types if there are several."""
    async with opened(make_store) as store:
        await store.append(noted("alice", of="User"))
        expect_equal(len(await store.get_events("alice")), 1, "events of the only alice")
        await store.append(noted("alice", of="Account"))
        error = await expect_error(AmbiguousStream, store.get_events("alice"), "two streams of alice")
        if "Account" not in str(error) or "User" not in str(error):
            raise AssertionError(f"the error must name Account and User, found: {error}")


async def streams_are_read_page_by_page(make_store: MakeStore) -> None:
    """A stream longer than a page is read whole, and `read_stream` keeps to its limit and its stream."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        await store.append(*[noted(name) for _ in range(size) for name in ("a", "b")])
        expect_equal(await versions_of(store, "a"), list(range(1, size + 1)), "versions of a long stream")
        stream = StreamId("Account", "a")
        expect_equal(len(await store.read_stream(stream)), PAGE, "records in a page")
        for after, limit in ((0, 1), (PAGE - 1, 2), (size - 2, 10), (size, 10), (size + 10, 10), (0, 0)):
            page = await store.read_stream(stream, after, limit)
            wanted = list(range(after + 1, min(after + limit, size) + 1))
            expect_equal(
                [record.aggregate_version for _, record in page], wanted, f"{limit} records after {after}"
            )
            expect_equal({record.stream for _, record in page} - {stream}, set(), "other streams in the page")


async def the_log_is_read_page_by_page(make_store: MakeStore) -> None:
    """`read_all` and `read_log` continue beyond a page and keep to `after` and `limit`."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        recorded = await store.append(*[noted(f"a{number % 7}", str(number)) for number in range(size)])
        recorded += await store.append(*[noted("a0", str(number)) for number in range(2 * PAGE)])
        expect_equal(await log_of(store), in_place(recorded), "the whole log")
        everything = [each async for each in store.read_all()]
        for limit in (0, 1, PAGE, PAGE + 1, size + 2 * PAGE + 5):
            found = [each async for each in store.read_all(limit=limit)]
            expect_equal(found, everything[:limit], f"the first {limit}")
        starts = await starts_of(store)
        lengths = []
        for number, log_start in enumerate(starts):
            log = [each for each in recorded if log_of_position(each.position) == number]
            lengths.append(len(log))
            await _expect_pages(store, log_start, log, is_alone=len(starts) == 1)
        if max(lengths) <= PAGE:
            raise AssertionError(f"no log has more than a page: {lengths}")


async def _expect_pages(
    store: EventStore, log_start: int, log: Sequence[RecordedEvent], *, is_alone: bool
) -> None:
    """Fail if ``log`` is not what is read from each of its places. Of several logs, `read_all` reads none alone."""
    size = len(log)
    expect_equal(len(await store.read_log(log_start)), min(PAGE, size), "records in a page")
    expect_equal(await store.read_log(log_start, limit=0), [], "a page of none")
    for start, limit in ((0, 0), (0, 1), (1, PAGE), (0, PAGE + 1), (PAGE - 1, 2 * PAGE), (size - 1, 5)):
        if not 0 <= start < size:
            continue
        after = log[start - 1].position if start else log_start
        page = [position for position, _ in await store.read_log(after, limit)]
        wanted = log[start : start + limit]
        expect_equal(page, [each.position for each in wanted], f"a page of {limit} after {after}")
        if is_alone:
            expect_equal(await log_of(store, after, limit), wanted, f"{limit} after {after}")
        elif size:
            await expect_error(SeveralLogs, log_of(store, after), "all logs after a position of one")
    end = log[-1].position if log else log_start
    for after in (end, end + 10):
        expect_equal(await store.read_log(after), [], "the log after its end")
        if is_alone:
            expect_equal(await log_of(store, after), [], "the log after its end")


async def streams_are_read_backward(make_store: MakeStore) -> None:
    """Read backward, a stream comes newest first, by the same version, time and limit; its version is known."""
    async with opened(make_store) as store:
        size = 2 * PAGE + 3
        noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
        stream = StreamId("Account", "a")
        expect_equal(await store.last_version(stream), 0, "the version of a stream that is not there")
        for first in range(1, size + 1, 100):
            numbers = range(first, min(first + 100, size + 1))
            batch = [noted("a", str(n), timestamp=noon + n * timedelta(minutes=1)) for n in numbers]
            await store.append(*batch, noted("ab"), noted("a", of="User"))
        expect_equal(await store.last_version(stream), size, "the version of the stream")
        expect_equal(await store.last_version(StreamId("User", "a")), size // 100 + 1, "that of its namesake")
        newest_first = [str(number) for number in range(size, 0, -1)]
        expect_equal(await texts_of(store, "a", backward=True), newest_first, "the whole stream")
        for since, limit in ((0, 1), (0, PAGE), (PAGE, PAGE + 1), (size - 3, 5), (size, 5), (0, 0)):
            wanted = newest_first[: size - since][:limit]
            found = await texts_of(store, "a", since_version=since, limit=limit, backward=True)
            expect_equal(found, wanted, f"the last {limit} since {since}")
        when = noon + timedelta(minutes=size - 2)
        found = await texts_of(store, "a", since_timestamp=when, limit=2, backward=True)
        expect_equal(found, newest_first[:2], "the last two of three since a time")
        expect_equal(await texts_of(store, "unknown", backward=True), [], "a stream that is not there")


_WAYS: Sequence[tuple[dict[str, Any], Callable[[DomainEvent], bool]]] = (
    ({}, lambda event: True),
    ({"topic_pattern": "a.*"}, lambda event: event.topic == "a.b"),
    ({"topic_pattern": "a.>"}, lambda event: event.topic in ("a.b", "a.b.c")),
    ({"topic_pattern": ("b.*", "a.b.*")}, lambda event: event.topic in ("b.c", "a.b.c")),
    ({"topic_pattern": ["a.b", "a.*", "nothing"]}, lambda event: event.topic == "a.b"),
    ({"topic_pattern": ()}, lambda event: False),
    ({"aggregate_id": "a"}, lambda event: event.aggregate_id == "a"),
    ({"aggregate_id": "nothing"}, lambda event: False),
    (
        {"aggregate_id": "a", "aggregate_type": "User"},
        lambda event: (event.aggregate_id, event.aggregate_type) == ("a", "User"),
    ),
    (
        {"aggregate_id": "a", "aggregate_type": "Account", "event_type": Noted, "topic_pattern": "a.>"},
        lambda event: (
            isinstance(event, Noted) and event.aggregate_type == "Account" and event.topic in ("a.b", "a.b.c")
        ),
    ),
    ({"event_type": Noted}, lambda event: isinstance(event, Noted)),
    ({"event_type": DomainEvent}, lambda event: isinstance(event, Noted | Measured)),
    ({"event_type": "uno_actors.testing.Measured"}, lambda event: isinstance(event, Measured)),
    ({"event_type": (Measured, "nothing")}, lambda event: isinstance(event, Measured)),
    ({"aggregate_type": "User"}, lambda event: event.aggregate_type == "User"),
    ({"aggregate_type": "nothing"}, lambda event: False),
    ({"correlation_id": "x"}, lambda event: event.correlation_id == "x"),
    (
        {"topic_pattern": "*.*", "event_type": Noted, "aggregate_type": "User", "correlation_id": "x"},
        lambda event: (
            event.topic in ("a.b", "b.c")
            and isinstance(event, Noted)
            and event.aggregate_type == "User"
            and event.correlation_id == "x"
        ),
    ),
)
"""Ways to narrow the log, and what each means."""


def _scattered(size: int) -> list[DomainEvent]:
    """Events of which each way of narrowing selects some."""
    topics, types, correlations = (None, "a.b", "a.b.c", "b.c"), ("Account", "User"), (None, "x", "y")
    return [
        (measured() if number % 7 == 6 else noted("a", str(number))).stamped(
            event_id=str(number),
            topic=topics[number % 4],
            aggregate_type=types[number % 2],
            correlation_id=correlations[number % 3],
        )
        for number in range(size)
    ]


async def headings_are_those_of_the_log(make_store: MakeStore) -> None:
    """`read_headings` says whose events `read_log` reads, at the same positions."""
    async with opened(make_store) as store:
        starts = await starts_of(store)
        for start in starts:
            expect_equal(await store.read_headings(start), [], "an empty log")
        await store.append(
            noted("a", "first"), noted("b", of="Other"), noted(None, "alone"), noted("a", "x" * 5000)
        )
        await store.append(*[noted(f"a{number % 3}", str(number)) for number in range(PAGE)])
        places = ((0, PAGE), (0, 1), (2, 3), (3, PAGE), (PAGE + 4, 5), (PAGE + 50, 1), (1, 0))
        for after, limit in [(start + place, limit) for start in starts for place, limit in places]:
            expected = [
                (position, record.aggregate_type, record.aggregate_id, record.aggregate_version)
                for position, record in await store.read_log(after, limit)
            ]
            found = [tuple(heading) for heading in await store.read_headings(after, limit)]
            expect_equal(found, expected, f"{limit} headings after {after}")


async def the_log_is_narrowed(make_store: MakeStore) -> None:
    """`read_all` gives those events that a topic, type, aggregate type and correlation id select, in order."""
    async with opened(make_store) as store:
        log = await store.append(*_scattered(2 * PAGE + 3))
        for way, is_wanted in _WAYS:
            wanted = [each for each in log if is_wanted(each.event)]
            selected = [recorded async for recorded in store.read_all(**way)]
            expect_in_log_order(selected)
            expect_equal(in_place(selected), in_place(wanted), f"what {way} selects")
            for limit in (0, 3):
                found = [recorded async for recorded in store.read_all(0, limit, **way)]
                expect_equal(found, selected[:limit], f"the first {limit} that {way} selects")
            if len(await store.last_positions()) == 1:
                after = log[PAGE].position
                found = [recorded async for recorded in store.read_all(after, 3, **way)]
                rest = [each for each in wanted if each.position > after]
                expect_equal(found, rest[:3], f"what {way} selects after {after}")
                for until in (0, PAGE // 2, PAGE, PAGE + 7, 2 * PAGE + 2, 3 * PAGE):
                    found = [recorded async for recorded in store.read_all(until=until, **way)]
                    up_to = [each for each in wanted if each.position <= until]
                    expect_equal(found, up_to, f"what {way} selects up to {until}")
        one = LogFilter(correlation_id="x")
        found_records = [stored async for stored in store.read_records(matching=one)]
        positions = sorted(position for position, event in log if event.correlation_id == "x")
        expect_equal(
            [position for position, _ in in_place(found_records)], positions, "places of records selected"
        )


async def one_stream_is_read_between_positions(make_store: MakeStore) -> None:
    """`read_all` of one stream takes positions of its log, in a store with several logs too, and no other."""
    async with opened(make_store) as store:
        names = [f"s{number}" for number in range(8)]
        for turn in range(40):
            await store.append(*[noted(name, str(turn)) for name in names[: 1 + turn % 8]])
        log = await log_of(store)
        ends = await store.last_positions()
        for name in names:
            own = [each for each in log if each.event.aggregate_id == name]
            way: dict[str, Any] = {"aggregate_id": name, "aggregate_type": "Account"}
            places = [own[number].position + shift for number in (0, len(own) // 2, -1) for shift in (-1, 0)]
            inside = {log_of_position(each.position) for each in own}
            for after in places:
                if log_of_position(after) in inside and after not in starts_of_logs(len(ends)):
                    found = [each async for each in store.read_all(after, **way)]
                    expect_equal(
                        found, [each for each in own if each.position > after], f"{name} after {after}"
                    )
                    found = [each async for each in store.read_all(after, 2, until=own[-1].position, **way)]
                    wanted = [each for each in own if each.position > after]
                    expect_equal(found, wanted[:2], f"two of {name} after {after}")
            elsewhere = next((each for each in log if log_of_position(each.position) not in inside), None)
            if elsewhere is not None:
                other = store.read_all(elsewhere.position, **way)
                await expect_error(SeveralLogs, anext(other), "a position of another log")
                until = store.read_all(until=elsewhere.position, **way)
                await expect_error(SeveralLogs, anext(until), "the end in another log")
        if len(ends) > 1:
            await expect_error(
                SeveralLogs, anext(store.read_all(until=ends[0])), "all logs up to one position"
            )


async def read_all_goes_on_while_the_log_grows(make_store: MakeStore) -> None:
    """A reader in the middle of the log sees a prefix of the log, in order, while others append."""
    async with opened(make_store) as store:
        await store.append(*[noted("a", str(number)) for number in range(PAGE + 1)])
        seen: list[str] = []
        async for recorded in store.read_all():
            if len(seen) == 10:
                await store.append(noted("b", str(PAGE + 1)))
            seen.append(recorded.event.text if isinstance(recorded.event, Noted) else "")
        expect_equal(seen, [str(number) for number in range(len(seen))], "the log as it was read")
        if len(seen) <= PAGE:
            raise AssertionError(f"the reader stopped after {len(seen)} events")
