"""Checkpoints that move in the transaction that records events."""

import asyncio

from uno_actors.errors import CheckpointConflict, ConcurrencyConflict, InvalidHandler, InvalidNumber
from uno_actors.store.port import EventStore
from uno_actors.store.records import Checkpoint, ViewChange
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import (
    ends_of,
    expect_empty,
    expect_ends,
    expect_equal,
    expect_error,
    request_of,
    texts_of,
)
from uno_actors.testing.contract.progress import dead_letter
from uno_actors.testing.contract.store_place import MakeStore, opened

UPSTREAM = 40
"""Events that two consumers with one name both take in."""


async def events_move_a_checkpoint(make_store: MakeStore) -> None:
    """Events and a checkpoint are recorded together or not at all; with no events the checkpoint moves alone."""
    async with opened(make_store) as store:
        await store.append(noted("a", "1"), checkpoint=Checkpoint("intake", 7))
        await store.append(noted("a", "2"), noted("b", "1"), checkpoint=Checkpoint("intake", 9, was=7))
        expect_equal(await store.append(checkpoint=Checkpoint("other", 2**40)), [], "what no events record")
        expect_equal(await store.checkpoints(), {"intake": 9, "other": 2**40}, "the checkpoints")
        conflict = store.append(noted("a"), expected_version=1, checkpoint=Checkpoint("intake", 10))
        await expect_error(ConcurrencyConflict, conflict, "a version that is not expected")
        new = store.append(noted("a"), expected_version=1, checkpoint=Checkpoint("new", 1))
        await expect_error(ConcurrencyConflict, new, "the same with a checkpoint that is not there")
        expect_equal(
            await store.checkpoints(), {"intake": 9, "other": 2**40}, "the checkpoints after conflicts"
        )
        expect_equal(await texts_of(store, "a"), ["1", "2"], "the stream")
        await expect_ends(store, await ends_of(store))


async def a_checkpoint_moves_from_where_it_is_expected(make_store: MakeStore) -> None:
    """A checkpoint that is elsewhere, or that would not move forward, is a conflict; nothing is recorded."""
    async with opened(make_store) as store:
        too_late = await _refused(store, Checkpoint("intake", 5, was=3), None)
        expect_equal("is not set" in too_late, True, "whether the error says that there is none")
        await store.append(checkpoint=Checkpoint("intake", 5, was=0))
        for wrong in (
            Checkpoint("intake", 5),
            Checkpoint("intake", 4),
            Checkpoint("intake", 0),
            Checkpoint("intake", 6, was=0),
            Checkpoint("intake", 6, was=4),
            Checkpoint("intake", 6, was=6),
            Checkpoint("intake", 5, was=5),
            Checkpoint("intake", 3, was=4, may_go_back=True),
        ):
            await _refused(store, wrong, 5)
        await expect_empty(store)
        await store.append(checkpoint=Checkpoint("intake", 5, may_go_back=True))
        await store.append(noted("a", "again"), checkpoint=Checkpoint("intake", 2, was=5, may_go_back=True))
        await store.append(noted("a", "on"), checkpoint=Checkpoint("intake", 3, was=2))
        await store.append(checkpoint=Checkpoint("zero", 0))
        await store.append(checkpoint=Checkpoint("zero", 1, was=0))
        expect_equal(await store.checkpoints(), {"intake": 3, "zero": 1}, "the checkpoints")
        expect_equal(await texts_of(store, "a"), ["again", "on"], "the stream")


async def _refused(store: EventStore, move: Checkpoint, actual: int | None) -> str:
    """The text of the conflict that the move ends with."""
    before = await store.checkpoints()
    error = await expect_error(CheckpointConflict, store.append(noted("a"), checkpoint=move), f"{move}")
    expect_equal(await store.checkpoints(), before, f"the checkpoints after {move}")
    found = (getattr(error, "name", ""), getattr(error, "position", 0), getattr(error, "was", 0))
    expect_equal(found, (move.name, move.position, move.was), "what the conflict says of the move")
    expect_equal(getattr(error, "actual", -1), actual, "where the conflict says that it is")
    return str(error)


async def checkpoints_of_one_commit_stand_alone(make_store: MakeStore) -> None:
    """In one commit each request finds the checkpoint as the requests before it have left it."""
    async with opened(make_store) as store:
        await store.save_progress({"there": 4})
        outcomes = await store.commit(
            [
                request_of(noted("a", "1"), checkpoint=Checkpoint("intake", 1, was=0)),
                request_of(noted("a", "lost"), checkpoint=Checkpoint("intake", 1)),
                request_of(noted("a", "lost"), expected_version=0, checkpoint=Checkpoint("intake", 2)),
                request_of(noted("a", "2"), expected_version=1, checkpoint=Checkpoint("intake", 3, was=1)),
                request_of(noted("b", "1"), checkpoint=Checkpoint("there", 5, was=4)),
                request_of(noted("b", "lost"), checkpoint=Checkpoint("never", 5, was=4)),
                request_of(checkpoint=Checkpoint("intake", 4, was=3)),
                request_of(noted("b", "2")),
            ]
        )
        failed = [type(outcome).__name__ for outcome in outcomes]
        wanted = ["Appended", "CheckpointConflict", "ConcurrencyConflict", "Appended", "Appended"]
        expect_equal(failed, [*wanted, "CheckpointConflict", "Appended", "Appended"], "the outcomes")
        expect_equal(await store.checkpoints(), {"intake": 4, "there": 5}, "the checkpoints")
        expect_equal(await texts_of(store, "a"), ["1", "2"], "the stream a")
        expect_equal(await texts_of(store, "b"), ["1", "2"], "the stream b")


async def impossible_checkpoints_are_refused(make_store: MakeStore) -> None:
    """A name that no handler can have, or a position out of range, is refused; other requests are recorded."""
    async with opened(make_store) as store:
        for name in ("", "x" * 503, "a\0b", "\ud800"):
            await expect_error(
                InvalidHandler, store.append(noted("a"), checkpoint=Checkpoint(name, 1)), f"the name {name!r}"
            )
        for wrong in (Checkpoint("c", -1), Checkpoint("c", 2**63), Checkpoint("c", 5, was=-1)):
            await expect_error(InvalidNumber, store.append(noted("a"), checkpoint=wrong), f"{wrong}")
        bad = request_of(noted("a"), checkpoint=Checkpoint("a\0b", 1))
        (_, done) = await store.commit([bad, request_of(noted("a", "1"))])
        expect_equal(isinstance(done, Exception), False, "whether the other request fails")
        await store.append(noted("a", "2"), checkpoint=Checkpoint("é" * 251, 2**63 - 1))
        expect_equal(await store.checkpoints(), {"é" * 251: 2**63 - 1}, "the checkpoints")
        expect_equal(await texts_of(store, "a"), ["1", "2"], "the stream")


async def of_two_consumers_one_records_each_event(make_store: MakeStore) -> None:
    """Two that both take in the events of another log, under one name, record each of them once."""
    async with opened(make_store) as store:

        async def consume(name: str) -> int:
            conflicts = 0
            while (done := (await store.checkpoints()).get("intake", 0)) < UPSTREAM:
                await asyncio.sleep(0)  # the other one reads the same checkpoint
                try:
                    move = Checkpoint("intake", done + 1, was=done)
                    await store.append(noted(name, str(done + 1)), checkpoint=move)
                except CheckpointConflict:
                    conflicts += 1
            return conflicts

        conflicts = await asyncio.gather(consume("a"), consume("b"))
        found = [int(text) for name in ("a", "b") for text in await texts_of(store, name)]
        expect_equal(sorted(found), list(range(1, UPSTREAM + 1)), "the upstream events that were recorded")
        expect_equal(sum(conflicts) > 0, True, "whether they met")


async def progress_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping the progress of one name removes its checkpoint and dead letters, and nothing of others or of views."""
    async with opened(make_store) as store:
        letters = [dead_letter(name, position) for name in ("a", "ab", "a.b") for position in (1, 2**33)]
        view = ViewChange("a", b"k", b"v")
        await store.save_progress({"a": 5, "ab": 6, "a@1": 7}, letters, [view])
        await store.append(noted("a", "1"), checkpoint=Checkpoint("intake", 9))
        expect_equal(await store.drop_progress("nothing"), False, "dropping what is not there")
        expect_equal(await store.drop_progress("a"), True, "dropping one")
        expect_equal(await store.drop_progress("a"), False, "dropping it again")
        expect_equal(await store.drop_progress("intake"), True, "dropping one without dead letters")
        expect_equal(await store.drop_progress("a.b"), True, "dropping one without a checkpoint")
        expect_equal(await store.checkpoints(), {"ab": 6, "a@1": 7}, "the checkpoints left")
        expect_equal(await store.dead_letters(), letters[2:4], "the dead letters left")
        expect_equal(await store.read_view("a"), [(b"k", b"v")], "the view")
        await store.append(noted("a", "2"), checkpoint=Checkpoint("intake", 1, was=0))
        expect_equal(
            await store.checkpoints(), {"ab": 6, "a@1": 7, "intake": 1}, "the checkpoint after it moved again"
        )
        await expect_error(InvalidHandler, store.drop_progress(""), "dropping no name")
