"""Appends that wait a moment for others: to be recorded together with them, or to save a commit.

A `Joint` ties the append of a command that leads to those of commands that follow from it: what a process decides, and
what the aggregates decide to which it sends commands. The leader is held until the first follower is decided. Then both
go to the journal, which records them in one transaction, all or nothing. So nothing that follows is ever recorded
without the leader. If the leader was recorded before, followers are appended as ever; if it fails, they are not.

A batch that leads takes no more commands. So whatever it follows was decided before it, and no circle can come about.

A `Linger` holds what can wait, until the next command of the aggregate or the end of its time.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from uno_actors.aggregates.envelope import CommandEnvelope, Failed
from uno_actors.errors import CallerError, ConcurrencyConflict, UnoError
from uno_actors.store.records import Append, Appended

HELD_FOR = 0.25
"""Maximum number of seconds for which an append waits for those that follow from it."""
LINGERS_FOR = 0.05
"""Maximum number of seconds for which an append waits that nothing waits for."""

AppendOutcome = Appended | UnoError


class NotRecordedBefore(UnoError):
    """What an append was to follow was not recorded, so it was not recorded either."""

    def __init__(self) -> None:
        super().__init__("what it follows was not recorded")


class Held:
    """Holds the decisions of an aggregate for a moment.

    Attributes:
        is_over: Whether it holds them no more.
    """

    __slots__ = ("_flush", "_timer", "is_over")

    seconds: ClassVar[float]
    """Maximum time."""

    def __init__(self) -> None:
        self.is_over = False
        self._flush: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def holds(self, flush: Callable[[], None], result: Any) -> bool:
        """Whether what was decided waits; ``flush`` is called when it waits no more.

        Args:
            flush: Appends it.
            result: Of the command.
        """
        if self._flush is None and not self.is_over:
            self._flush = flush
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self.release)
        return not self.is_over

    def release(self) -> None:
        """Append what is held; idempotent."""
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        flush, self._flush = self._flush, None
        if flush is not None:
            flush()


class Linger(Held):
    """Holds an append that nothing waits for, to record it with the next one of the aggregate."""

    __slots__ = ()
    seconds = LINGERS_FOR


class Joint(Held):
    """Holds the append of a command that others follow from, to record it with theirs.

    Attributes:
        decided: The result of the command once it is held; ``None`` if it is answered without that.
        outcome: Of the append; ``None`` while it is not known.
        apart: Whether the followers are recorded after it, because together was refused.
    """

    __slots__ = ("apart", "decided", "outcome")
    seconds = HELD_FOR

    def __init__(self) -> None:
        super().__init__()
        self.decided: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.outcome: AppendOutcome | None = None
        self.apart = False

    @override
    def holds(self, flush: Callable[[], None], result: Any) -> bool:
        if not result or isinstance(result, Failed):
            self.is_over = True  # nothing follows
        if not super().holds(flush, result):
            return False
        if not self.decided.done():
            self.decided.set_result(result)
        return True

    def answered(self, _: object) -> None:
        """The command is answered."""
        if not self.decided.done():
            self.decided.set_result(None)

    def give_up(self) -> None:
        """Note that the append has failed, or will never come."""
        if self.outcome is None:
            self.outcome = NotRecordedBefore()

    @property
    def is_recorded(self) -> bool:
        """Whether the append is recorded."""
        return isinstance(self.outcome, Appended)

    @property
    def has_failed(self) -> bool:
        """Whether the append has failed."""
        return self.outcome is not None and not self.is_recorded


Decided = Sequence[tuple[CommandEnvelope, Any]]
"""Commands with their results."""


def holds(batch: Decided, flush: Callable[[], None]) -> bool:
    """Whether all that was decided may wait for what is to be recorded with it."""
    envelope, result = batch[-1]
    held: Held | None = envelope.held
    if held is None or any(each.held is None for each, _ in batch):
        return False
    if envelope.leads and not envelope.end:  # it records nothing, so nothing can follow it
        return False
    return held.holds(flush, result)


def let_go(batch: Decided | None) -> None:
    """Append a batch that leads and is held: it takes no more commands, and another has come."""
    if batch is not None and batch[-1][0].leads and batch[-1][0].held is not None:
        batch[-1][0].held.release()


def joints_of(batch: Decided) -> tuple[Joint | None, tuple[Joint, ...]]:
    """The joint that a batch leads, and those that it follows, whose appends come now."""
    held = batch[-1][0].held
    lead = held if isinstance(held, Joint) else None
    for envelope, _ in batch:
        if envelope.follows is not None:
            break
    else:
        return lead, ()
    follows = tuple({each.follows: None for each, _ in batch if each.follows is not None})
    for joint in follows:
        joint.release()
    return lead, follows


def may_run_apart(outcome: AppendOutcome, batch: Decided | None) -> bool:
    """Whether the commands of a batch that was not recorded are run again without what has failed.

    Either what some follow was not recorded. Or one of several events cannot be recorded, and it is unknown which: then
    each command gets its own append.
    """
    if isinstance(outcome, CallerError) and batch is not None and len(batch) > 1:
        for envelope, _ in batch:
            envelope.alone = True
        return True
    return isinstance(outcome, NotRecordedBefore)


class Entry(NamedTuple):
    """A request that waits in the journal.

    Attributes:
        request: The request.
        done: Called with its outcome.
        lead: The joint that it leads.
        follows: The joints that it follows.
    """

    request: Append
    done: Callable[[AppendOutcome], None]
    lead: Joint | None = None
    follows: tuple[Joint, ...] = ()


class Sorted(NamedTuple):
    """The entries of one group.

    Attributes:
        bundles: Those to commit now; the entries of each bundle in one request.
        refused: Those that follow what was not recorded.
        later: Those that have to wait for the next group.
    """

    bundles: list[list[Entry]]
    refused: list[Entry]
    later: list[Entry]


def sort(group: Iterable[Entry]) -> Sorted:
    """Bundle the entries of a group that have to be recorded together."""
    found = Sorted([], [], [])
    bundle_of: dict[Joint, list[Entry]] = {}  # by the joints that are led in this group
    led_later: set[Joint] = set()
    for entry in group:
        pending = [joint for joint in entry.follows if not joint.is_recorded]
        lost = [joint for joint in pending if joint not in bundle_of and joint not in led_later]
        if lost:
            for joint in lost:
                joint.give_up()
            found.refused.append(entry)
            continue
        if any(joint.apart or joint in led_later for joint in pending):
            found.later.append(entry)
            if entry.lead is not None:
                led_later.add(entry.lead)
            continue
        bundle: list[Entry] = []
        for part in {id(bundle_of[joint]): bundle_of[joint] for joint in pending}.values():
            found.bundles[:] = [each for each in found.bundles if each is not part]
            bundle += part
        bundle.append(entry)
        found.bundles.append(bundle)
        for member in bundle:
            if member.lead is not None:
                bundle_of[member.lead] = bundle
    return found


def together(bundle: Sequence[Entry]) -> Append:
    """One request for all entries of a bundle. Their records have their versions, which are checked."""
    if len(bundle) == 1:
        return bundle[0].request
    return Append(tuple(record for entry in bundle for record in entry.request.records), None)


def is_refused(outcome: AppendOutcome) -> bool:
    """Whether a bundle was refused because of one of its entries, while the others may be recorded."""
    return isinstance(outcome, (ConcurrencyConflict, CallerError))


def apart(bundle: Sequence[Entry], outcome: AppendOutcome) -> list[AppendOutcome]:
    """The outcome of each entry of a bundle."""
    if not isinstance(outcome, Appended) or len(bundle) == 1:
        return [outcome for _ in bundle]
    found: list[AppendOutcome] = []
    at = 0
    for entry in bundle:
        end = at + len(entry.request.records)
        found.append(Appended(outcome.positions[at:end], outcome.records[at:end]))
        at = end
    return found
