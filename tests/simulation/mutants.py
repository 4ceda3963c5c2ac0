"""Variants of the runtime that are broken on purpose, each in one place: the simulation must find them.

A mutant replaces methods while it lives; the original is given to the replacement.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from purses import one_node, two_nodes

import uno_stores.memory
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.aggregates import actor as actor_module
from uno_actors.aggregates import loading
from uno_actors.aggregates.actor import AggregateActor
from uno_actors.aggregates.command_memory import CommandMemory
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.aggregates.journal import Journal
from uno_actors.aggregates.loading import Loader
from uno_actors.aggregates.snapshots import Snapshots
from uno_actors.causality import new_id
from uno_actors.errors import ConcurrencyConflict, OutcomeUnknown, StoreFull
from uno_actors.handlers.calls import HandlerCalls
from uno_actors.handlers.log_router import LogRouter
from uno_actors.handlers.progress import Progress
from uno_actors.handlers.router import RouterActor
from uno_actors.handlers.strategy import InOrder
from uno_actors.handlers.subscription import Subscription
from uno_actors.handlers.view import View
from uno_actors.handlers.view_building import ViewBuilding
from uno_actors.store.records import Append, Appended
from uno_actors.testing.simulation import Scenario
from uno_actors.testing.simulation.disk import Disk
from uno_actors.testing.simulation.store import SimulatedStore

Original = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One broken variant.

    Attributes:
        name: What it does wrong.
        patches: Where: a class or module, the name of a function of it, and what makes the broken one of the original.
        scenario: In which it shows.
    """

    name: str
    patches: tuple[tuple[Any, str, Callable[[Original], Any]], ...]
    scenario: Scenario = one_node

    @contextmanager
    def alive(self) -> Iterator[None]:
        """The runtime is broken inside the block."""
        with ExitStack() as stack:
            for place, name, make in self.patches:
                original = vars(place)[name]
                setattr(place, name, make(original))
                stack.callback(setattr, place, name, original)
            yield


# --- commands and the log ----------------------------------------------------------------------------------


def reply_before_the_append(original: Original) -> Original:
    def append(self: Any, request: Append, done: Callable[[Any], None], *joints: Any) -> None:
        original(self, request, lambda _: None, *joints)
        done(Appended(range(len(request.records)), request.records))

    return append


def outcome_as_success(kind: type) -> Callable[[Original], Original]:
    def make(original: Original) -> Original:
        def append(self: Any, request: Append, done: Callable[[Any], None], *joints: Any) -> None:
            def taken(outcome: Any) -> None:
                done(
                    Appended(range(len(request.records)), request.records)
                    if isinstance(outcome, kind)
                    else outcome
                )

            original(self, request, taken, *joints)

        return append

    return make


def append_twice_if_unknown(original: Original) -> Original:
    def append(self: Any, request: Append, done: Callable[[Any], None], *joints: Any) -> None:
        def taken(outcome: Any) -> None:
            if isinstance(outcome, OutcomeUnknown):
                anew = tuple(record._replace(aggregate_version=None) for record in request.records)
                original(self, request._replace(records=anew, expected_version=None), done, *joints)
            else:
                done(outcome)

        original(self, request, taken, *joints)

    return append


def no_fence(original: Original) -> Original:
    def place(request: Append, version_of: Any) -> Any:
        anew = tuple(record._replace(aggregate_version=None) for record in request.records)
        return original(request._replace(records=anew, expected_version=None), version_of)

    return place


def in_parts(original: Original) -> Original:
    async def commit(self: Any, requests: Any) -> Any:
        outcomes = []
        for request in requests:
            parts = []
            for record in request.records:
                expected = None if parts else request.expected_version
                parts += await original(self, [Append((record,), expected)])
            failed = [part for part in parts if not isinstance(part, Appended)]
            records = tuple(record for part in parts if isinstance(part, Appended) for record in part.records)
            first = next((part.positions[0] for part in parts if isinstance(part, Appended)), 1)
            outcomes.append(failed[0] if failed else Appended(range(first, first + len(records)), records))
        return outcomes

    return commit


def rerun_with_a_new_id(original: Original) -> Original:
    def survives(self: Any, *arguments: Any, **options: Any) -> bool:
        self.command = self.command.model_copy(update={"command_id": new_id()})
        return bool(original(self, *arguments, **options))

    return survives


def conflicts_are_dropped(original: Original) -> Original:
    def survives(self: Any, *arguments: Any, **options: Any) -> bool:
        original(self, *arguments, **options)
        if self.future is not None and not self.future.done():
            self.future.offer(0)
        return False

    return survives


def keeps_its_state_after_a_failed_append(original: Original) -> Original:
    def run_again(self: Any, *arguments: Any) -> None:
        instance = self.instance
        original(self, *arguments)
        self.instance = instance

    return run_again


def keeps_half_a_state(original: Original) -> Original:
    def execute(self: Any, envelope: Any, instance: Any, mark: bytes) -> None:
        original(self, envelope, instance, mark)
        if self.instance is None:
            instance.take_pending_events()
            self.instance = instance

    return execute


def forgets_the_next_batch(original: Original) -> Original:
    def flush(self: Any) -> None:
        if self._in_flight is not None and self._next_batch is not None and len(self._next_batch) > 1:
            self._next_batch.pop()
        original(self)

    return flush


# --- repeated commands -------------------------------------------------------------------------------------


def nothing_is_repeated(original: Original) -> Original:
    return lambda self, envelope, instance, mark: False


def memory_is_lost_when_loading(original: Original) -> Original:
    return lambda memory, record: None


def memory_notes_nothing(original: Original) -> Original:
    return lambda self, version, mark: None


def commands_under_way_are_not_known(original: Original) -> Original:
    return lambda command, stream, under_way: None


# --- loading -----------------------------------------------------------------------------------------------


def snapshot_of_another_version(original: Original) -> Original:
    def take_if_due(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        return None if found is None else found._replace(version=found.version - 1)

    return take_if_due


def loads_all_but_the_last(original: Original) -> Original:
    async def load(self: Any, stream: Any, baseline: Any = None) -> Any:
        loaded = await original(self, stream, baseline)
        if loaded.instance.version > 4:
            loaded.instance.total -= 1
        return loaded

    return load


# --- the loop ----------------------------------------------------------------------------------------------


def lost_wake_up(original: Original) -> Original:
    async def commit_all(self: Any) -> None:
        task = self._task
        await original(self)
        if self.commits % 4 == 0:
            self._task = task  # as if it still ran: what comes now waits for ever

    return commit_all


def a_call_is_dropped(original: Original) -> Original:
    def run_posted(self: Any) -> None:
        if len(self._posted) > 2:
            self._posted.pop()
        original(self)

    return run_posted


# --- handlers ----------------------------------------------------------------------------------------------


def checkpoint_before_success(original: Original) -> Original:
    def take(self: Any, batch: Any) -> None:
        original(self, batch)
        self.progress.pending.clear()
        self.progress.position = self.progress.taken

    return take


def checkpoint_passes_what_is_pending(original: Original) -> Original:
    return lambda self, position: self.taken


def checkpoint_is_one_too_far(original: Original) -> Original:
    async def save(self: Any, subscriptions: Any) -> None:
        for each in subscriptions:
            each.progress.position += 1
        await original(self, subscriptions)

    return save


def failures_are_swallowed(original: Original) -> Original:
    async def run_async(self: Any, batch: Any, **options: Any) -> Any:
        count, error = await original(self, batch, **options)
        return (len(batch), None) if error is not None else (count, error)

    return run_async


def restart_after_the_failed_event(original: Original) -> Original:
    def recover(self: Any) -> None:
        if self.state == "restarting":
            self.progress.move_to(self.progress.position + 1)
        original(self)

    return recover


def a_page_is_routed_backwards(original: Original) -> Original:
    return lambda self, page: original(self, page[::-1])


def the_end_of_a_page_is_skipped(original: Original) -> Original:
    def route(self: Any, page: Any) -> None:
        original(self, page[:-1] if len(page) > 1 else page)
        self.position = page[-1].position

    return route


def catching_up_skips_the_first(original: Original) -> Original:
    async def catch_up(self: Any) -> bool:
        progress = self._subscription.progress
        if progress.position and self._router.dispatched(self._subscription) > progress.position + 2:
            progress.move_to(progress.position + 1)
        return bool(await original(self))

    return catch_up


def two_holders_of_a_lease(original: Original) -> Original:
    async def lease(self: Any, name: str) -> Any:
        self.shelf.leases.pop(name, None)
        return await original(self, name)

    return lease


# --- views -------------------------------------------------------------------------------------------------


def view_and_checkpoint_apart(original: Original) -> Original:
    async def save_progress(
        self: Any, checkpoints: Any, dead_letters: Any = (), views: Any = (), dropped: Any = ()
    ) -> None:
        if views and checkpoints:
            await original(self, {}, dead_letters, views, dropped)
            await original(self, checkpoints)
        else:
            await original(self, checkpoints, dead_letters, views, dropped)

    return save_progress


def view_keeps_what_failed(original: Original) -> Original:
    async def record(self: Any, position: int, changes: Any) -> None:
        try:
            await original(self, position, changes)
        except Exception:  # noqa: BLE001 - that is what is wrong
            self._subscription.progress.checkpoint = f"{self._subscription.name}@1"
            self._view_is = "published"

    return record


def view_is_not_read_again(original: Original) -> Original:
    async def prepare(self: Any) -> None:
        if self._view_is == "unknown" and self._subscription.progress.saved is None:
            await original(self)

    return prepare


def view_loses_a_change(original: Original) -> Original:
    return lambda self: original(self)[:1]


# --- the store ---------------------------------------------------------------------------------------------


def acknowledged_before_the_sync(original: Original) -> Original:
    async def sync(self: Any) -> None:
        await self.pause(0.001)  # and nothing of it survives a power failure

    return sync


def torn_frames_are_kept(original: Original) -> Original:
    def frames(self: Any, after: int) -> Any:
        at = after
        while at + 8 <= len(self.data):
            end = at + 8 + int.from_bytes(self.data[at : at + 4], "big")
            yield min(end, len(self.data)), bytes(self.data[at + 8 : end])
            at = end

    return frames


def changed(place: Any, name: str, make: Callable[[Original], Any]) -> tuple[tuple[Any, str, Any], ...]:
    return ((place, name, make),)


MUTANTS = [
    Mutant("replies before the append", changed(Journal, "append", reply_before_the_append)),
    Mutant("replies before the sync", changed(Disk, "sync", acknowledged_before_the_sync)),
    Mutant(
        "takes an unknown outcome for success", changed(Journal, "append", outcome_as_success(OutcomeUnknown))
    ),
    Mutant("takes a full store for success", changed(Journal, "append", outcome_as_success(StoreFull))),
    Mutant(
        "takes a conflict for success",
        changed(Journal, "append", outcome_as_success(ConcurrencyConflict)),
        two_nodes,
    ),
    Mutant("appends again if the outcome is unknown", changed(Journal, "append", append_twice_if_unknown)),
    Mutant("has no fence", changed(uno_stores.memory, "place", no_fence), two_nodes),
    Mutant("records the events of a command in parts", changed(SimulatedStore, "commit", in_parts)),
    Mutant("reruns with a new id", changed(CommandEnvelope, "survives", rerun_with_a_new_id), two_nodes),
    Mutant(
        "answers a conflict without a rerun",
        changed(CommandEnvelope, "survives", conflicts_are_dropped),
        two_nodes,
    ),
    Mutant(
        "keeps its state after a failed append",
        changed(AggregateActor, "_run_again", keeps_its_state_after_a_failed_append),
    ),
    Mutant("keeps the state of a refused command", changed(AggregateActor, "_execute", keeps_half_a_state)),
    Mutant("forgets a command of the next batch", changed(AggregateActor, "_flush", forgets_the_next_batch)),
    Mutant("decides repeated commands again", changed(AggregateActor, "_is_repeated", nothing_is_repeated)),
    Mutant("loads without the memory of commands", changed(loading, "_note", memory_is_lost_when_loading)),
    Mutant("remembers no command", changed(CommandMemory, "note", memory_notes_nothing)),
    Mutant(
        "does not know commands under way",
        changed(actor_module, "result_under_way", commands_under_way_are_not_known),
    ),
    Mutant(
        "saves a snapshot of another version", changed(Snapshots, "take_if_due", snapshot_of_another_version)
    ),
    Mutant("loads a state of the past", changed(Loader, "load", loads_all_but_the_last)),
    Mutant("loses a wake-up", changed(Journal, "_commit_all", lost_wake_up)),
    Mutant("drops a call", changed(Dispatcher, "_run_posted", a_call_is_dropped)),
    Mutant("moves the checkpoint before success", changed(Subscription, "take", checkpoint_before_success)),
    Mutant("passes what is pending", changed(Progress, "without", checkpoint_passes_what_is_pending)),
    Mutant("moves the checkpoint too far", changed(RouterActor, "_save", checkpoint_is_one_too_far)),
    Mutant("swallows failures of handlers", changed(HandlerCalls, "run_async", failures_are_swallowed)),
    Mutant(
        "restarts after the failed event", changed(Subscription, "recover", restart_after_the_failed_event)
    ),
    Mutant("routes a page backwards", changed(LogRouter, "route", a_page_is_routed_backwards), two_nodes),
    Mutant("skips the end of a page", changed(LogRouter, "route", the_end_of_a_page_is_skipped)),
    Mutant("skips an event when it catches up", changed(InOrder, "_catch_up", catching_up_skips_the_first)),
    Mutant(
        "gives a lease to two holders", changed(SimulatedStore, "lease", two_holders_of_a_lease), two_nodes
    ),
    Mutant(
        "records view and checkpoint apart",
        changed(SimulatedStore, "save_progress", view_and_checkpoint_apart),
    ),
    Mutant(
        "takes a failed write of a view for success", changed(ViewBuilding, "_record", view_keeps_what_failed)
    ),
    Mutant("loses a change of a view", changed(View, "take_changes", view_loses_a_change)),
    Mutant("takes half a frame for a whole one", changed(Disk, "frames", torn_frames_are_kept)),
]
