"""Expected versions, and the outcome of each request of a commit."""

from uno_actors.errors import (
    ConcurrencyConflict,
    NoSuchStream,
)
from uno_actors.store.expected_version import EXISTS
from uno_actors.store.records import Appended
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import (
    appended_of,
    ends_of,
    expect_empty,
    expect_ends,
    expect_equal,
    expect_error,
    in_place,
    log_of,
    records_of,
    request_of,
    texts_of,
    versions_of,
)
from uno_actors.testing.contract.store_place import MakeStore, opened


async def expected_version_is_the_fence(make_store: MakeStore) -> None:
    """0 means a new stream, n one of exactly n events, ANY any version; everything else is a conflict."""
    async with opened(make_store) as store:
        await store.append(noted("a", "1"), expected_version=0)
        await store.append(noted("a", "2"), noted("a", "3"), expected_version=1)
        await store.append(noted("a", "4"))
        for wrong in (0, 1, 3, 5):
            error = await expect_error(
                ConcurrencyConflict, store.append(noted("a"), expected_version=wrong), f"expecting {wrong}"
            )
            if not isinstance(error, ConcurrencyConflict) or (error.expected, error.actual) != (wrong, 4):
                raise AssertionError(f"the conflict must tell 4 from {wrong}, found {error!r}")
        await expect_error(
            ConcurrencyConflict, store.append(noted("b"), expected_version=1), "expecting what is not there"
        )
        await store.append(noted("a", "5"), expected_version=4)
        expect_equal(await texts_of(store, "a"), ["1", "2", "3", "4", "5"], "the stream")
        await expect_ends(store, await ends_of(store))


async def a_stream_can_be_required_to_exist(make_store: MakeStore) -> None:
    """EXISTS means a stream with any number of events; one without is a conflict that says so."""
    async with opened(make_store) as store:
        error = await expect_error(
            NoSuchStream, store.append(noted("a"), noted("a"), expected_version=EXISTS), "a stream of nothing"
        )
        if not isinstance(error, NoSuchStream) or "Account<a>" not in str(error):
            raise AssertionError(f"the conflict must name the stream, found {error!r}")
        await store.append(noted("b", of="User"))
        await expect_error(
            NoSuchStream, store.append(noted("b"), expected_version=EXISTS), "a stream of another type"
        )
        await store.append(noted("a", "1"), expected_version=0)
        await store.append(noted("a", "2"), noted("a", "3"), expected_version=EXISTS)
        outcomes = await store.commit(
            [
                request_of(noted("c", "lost"), expected_version=EXISTS),
                request_of(noted("c", "1"), expected_version=0),
                request_of(noted("c", "2"), expected_version=EXISTS),
                request_of(noted("a", "4"), expected_version=EXISTS),
            ]
        )
        missing = [isinstance(outcome, NoSuchStream) for outcome in outcomes]
        expect_equal(missing, [True, False, False, False], "which requests find no stream")
        expect_equal(await texts_of(store, "a"), ["1", "2", "3", "4"], "the stream a")
        expect_equal(await texts_of(store, "c"), ["1", "2"], "the stream c")
        mixed = store.append(noted("a"), noted("c"), expected_version=EXISTS)
        await expect_error(ValueError, mixed, "two streams that exist")


async def expected_version_is_of_one_stream(make_store: MakeStore) -> None:
    """An expected version for events of several streams is refused."""
    async with opened(make_store) as store:
        mixed = store.append(noted("a"), noted("b"), expected_version=0)
        await expect_error(ValueError, mixed, "two streams and one expected version")
        await expect_empty(store)


async def an_append_is_all_or_nothing(make_store: MakeStore) -> None:
    """If the last of several events conflicts, none of them is recorded in any stream."""
    async with opened(make_store) as store:
        (first,) = await store.append(noted("a", "1"))
        misplaced = noted("b", aggregate_version=7)
        await expect_error(
            ConcurrencyConflict, store.append(noted("a"), noted("c"), misplaced), "a misplaced last event"
        )
        expect_equal(await log_of(store), [first], "the log")
        expect_equal(await store.aggregate_types("c"), [], "types of c")
        await store.append(noted("a", "2"), noted("b", "1"), noted("c", "1"))
        expect_equal(await versions_of(store, "a"), [1, 2], "versions of a")
        expect_equal(await versions_of(store, "b"), [1], "versions of b")
        expect_equal(await versions_of(store, "c"), [1], "versions of c")


async def an_event_may_bring_its_version(make_store: MakeStore) -> None:
    """An event that brings its version is recorded in that place, or refused as a conflict."""
    async with opened(make_store) as store:
        await store.append(noted("a", "1", aggregate_version=1), noted("a", "2"))
        await store.append(noted("a", "3", aggregate_version=3))
        for wrong in (1, 3, 5):
            await expect_error(
                ConcurrencyConflict, store.append(noted("a", aggregate_version=wrong)), f"version {wrong}"
            )
        expect_equal(await texts_of(store, "a"), ["1", "2", "3"], "the stream")


async def requests_of_one_commit_stand_alone(make_store: MakeStore) -> None:
    """In one commit a request that fails does not touch the others, on the same stream or another."""
    async with opened(make_store) as store:
        outcomes = await store.commit(
            [
                request_of(noted("a", "1"), expected_version=0),
                request_of(noted("a", "lost"), expected_version=0),
                request_of(noted("b", "1"), noted("b", "2"), expected_version=0),
                request_of(noted("c", "lost"), noted("c", aggregate_version=9)),
                request_of(noted("a", "2"), noted("a", "3"), expected_version=1),
                request_of(noted("c", "1"), expected_version=0),
                request_of(noted("a", "lost"), expected_version=2),
                request_of(noted("a", "4")),
            ]
        )
        failed = [isinstance(outcome, ConcurrencyConflict) for outcome in outcomes]
        expect_equal(failed, [False, True, False, True, False, False, True, False], "which requests conflict")
        expect_equal(await texts_of(store, "a"), ["1", "2", "3", "4"], "the stream a")
        expect_equal(await texts_of(store, "b"), ["1", "2"], "the stream b")
        expect_equal(await texts_of(store, "c"), ["1"], "the stream c")
        done = [appended_of(outcome) for outcome in outcomes if isinstance(outcome, Appended)]
        places = [each for positions, records in done for each in zip(positions, records, strict=True)]
        expect_equal(await records_of(store), in_place(places), "the log, by the outcomes")
