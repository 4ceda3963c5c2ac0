"""Commands on their way to other nodes: each is sent until it is answered or its time is over."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.aggregates import observed as observing
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.envelope import CommandEnvelope, Failed
from uno_actors.clock import Clock
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.hops import TOLD_FOR, Hop, time_left
from uno_actors.cluster.lending import Lending
from uno_actors.cluster.links.port import LARGEST, WINDOW, Delivery, Link, LinkFailure
from uno_actors.cluster.loans import Terms
from uno_actors.cluster.placement import Placement
from uno_actors.cluster.statistics import PeerStatistics
from uno_actors.cluster.wire import (
    LentToUs,
    NotServedHere,
    RaisedThere,
    RecordedThere,
    command_request,
    unpack_answer,
)
from uno_actors.errors import (
    AskTimeout,
    InvalidCommand,
    MailboxFull,
    NotServed,
    OutcomeUnknown,
    ReplyNotSent,
    StoreFull,
    StoreUnavailable,
    SystemNotRunning,
    describe,
)
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member

GRACE = 0.25
"""Seconds that a sender waits longer than its time for another node, which knows better why there is no reply."""
NOT_HANDLED = (MailboxFull, NotServed, StoreFull, StoreUnavailable, SystemNotRunning)
"""Errors that say of a command that it has had no effect."""


@dataclass(slots=True)
class Peer:
    """Counters of another node; see `PeerStatistics`."""

    sent: int = 0
    sent_again: int = 0
    served: int = 0
    answers: int = 0
    seconds: float = 0.0

    def statistics(self) -> PeerStatistics:
        """The counters as users see them."""
        seconds = self.seconds / self.answers if self.answers else None
        return PeerStatistics(self.sent, self.sent_again, self.served, seconds)


class Outgoing:
    """The commands of one node that other nodes are to handle. Lives on the event loop.

    Args:
        link: To the other nodes.
        announcement: Of this node.
        aggregates: Handle a command here if this node becomes its owner.
        known_position: Returns a position that the log of a stream has reached.
        dead: Where commands go that were told and failed.
        clock: Measures all times.
        put_away: Called with a node whose link has failed, and the reason; the placement is another one afterwards.
        system: Name of the system, for errors.
        terms: Of its loans.

    Attributes:
        placement: Who owns what.
        lending: The loans of this node.
        local: Commands handled here after all.
        peers: Counters of the other nodes, by name.
        waiting: Commands that are not answered yet.
        is_closed: Whether this node has stopped.
    """

    def __init__(
        self,
        link: Link,
        announcement: Announcement,
        aggregates: Aggregates,
        *,
        known_position: Callable[[StreamId], int],
        dead: DeadMessages,
        clock: Clock,
        put_away: Callable[[Member, str], None],
        system: str,
        terms: Terms,
    ) -> None:
        self.placement = Placement()
        self.lending = Lending(
            link,
            announcement,
            aggregates,
            clock=clock,
            placement=lambda: self.placement,
            put_away=put_away,
            terms=terms,
        )
        self.local = 0
        self.waiting = 0
        self.peers: defaultdict[str, Peer] = defaultdict(Peer)
        self.is_closed = False
        self._link = link
        self._announcement = announcement
        self._aggregates = aggregates
        self._observed = aggregates.observed
        self._recorder = aggregates.recorder
        self._known_position = known_position
        self._dead = dead
        self._clock = clock
        self._put_away = put_away
        self._system = system
        self._id = announcement.member.id
        self._name = announcement.member.name
        self._under_way: dict[StreamId, set[Hop]] = {}  # not answered yet
        self._homeless: set[Hop] = set()

    def under_way(self) -> list[Hop]:
        """The commands that are not answered yet."""
        return [hop for hops in self._under_way.values() for hop in hops]

    @property
    def homeless(self) -> int:
        """Those among them that wait for a node that serves them."""
        return len(self._homeless)

    def place(self, placement: Placement) -> None:
        """Route by another placement; try again what no node served."""
        self.placement = placement
        self.lending.place(placement)
        homeless, self._homeless = self._homeless, set()
        for hop in homeless:
            hop.refused.clear()
            self._send(hop)

    def route(
        self,
        stream: StreamId,
        envelope: CommandEnvelope,
        name: str,
        seconds: float,
        owner: Member | None,
    ) -> None:
        """Send a command to the owner of its aggregate, and wait for the answer.

        Args:
            stream: Of the aggregate.
            envelope: With the command.
            name: Announced name of the command.
            seconds: How long its sender waits.
            owner: Of the aggregate, by `placement`; ``None`` if no node serves the command.
        """
        since = self._known_position(stream)
        if envelope.looks_back:
            ours = envelope.store is None or envelope.store is self._aggregates.store
            since = envelope.since if ours else 0
        deadline = self._clock.monotonic() + (TOLD_FOR if envelope.future is None else seconds)
        try:
            hop = Hop(stream, envelope, name, seconds=seconds, deadline=deadline, since=since)
            if len(hop.payload) > LARGEST // 2:
                size = f"it has {len(hop.payload):,} bytes; at most {LARGEST // 2:,} travel to another node"
                raise InvalidCommand(type(envelope.command).__name__, size)  # noqa: TRY301 - as all that cannot be written
        except InvalidCommand as error:
            self._end(stream, envelope, Failed(error))
            return
        self._begin(hop)
        if self._recorder is not None:
            self._recorder.sent(stream, envelope.command, _asked(envelope))
        self._send_to(owner, hop)

    def _begin(self, hop: Hop) -> None:
        self.waiting += 1
        self._under_way.setdefault(hop.stream, set()).add(hop)

    def _end_of(self, hop: Hop) -> None:
        """The command is no longer under way to another node."""
        self.waiting -= 1
        hops = self._under_way[hop.stream]
        hops.discard(hop)
        if not hops:
            del self._under_way[hop.stream]
            if hop.stream in self.lending.handovers:
                self.lending.all_answered(hop.stream)

    def _send(self, hop: Hop) -> None:
        """Send a command to its owner, which may have changed since it was sent before."""
        self._send_to(self.placement.owner(hop.stream, hop.name, hop.unfit), hop)

    def _send_to(self, owner: Member | None, hop: Hop) -> None:
        now = self._clock.monotonic()
        left = time_left(hop.seconds, hop.deadline, now)
        if owner is None and self._serves(hop):  # also while it leaves, if there is no other
            owner = self._announcement.member
        if owner is None or owner.address is None:
            self._wait_for_members(hop, left)
            return
        if hop.may_be_handled:
            hop.envelope.look_back(hop.since)
            hop.envelope.started = True  # even if it is not, the lost attempt may take effect
        if owner.id == self._id:
            self._end_of(hop)
            self._handle(hop, left)
            return
        peer = self.peers[owner.name]
        peer.sent += 1
        hop.node, hop.sent = owner.name, now
        if self._recorder is not None:
            self._recorder.hop("hop sent", hop.stream, hop.envelope.command, owner.name)
        trace: dict[str, str] | None = None
        if self._observed is not None and self._observed.in_contexts:
            trace = observing.hop(self._observed, hop.stream, hop.envelope, owner.name)
        body = command_request(
            hop.stream,
            hop.envelope.command,
            hop.payload,
            seconds=left,
            since=hop.since if hop.envelope.looks_back else None,
            told=hop.told,
            sender=self._name,
            trace=trace,
            borrower=self._borrower(hop),
        )
        patience = left + GRACE
        if self._aggregates.remember_commands:  # a slow owner may be asked twice, and more and more seldom
            patience = min(patience, self._link.resend_after * 2**hop.late)
        self._link.request(
            owner.address, body, patience, lambda answer: self._answered(hop, owner, peer, now, answer)
        )

    def _borrower(self, hop: Hop) -> str | None:
        # Otherwise this node would handle what the other one may have in its mailbox, or borrow from a second choice.
        if hop.may_be_handled or hop.refused:
            return None
        return self.lending.borrower(hop.stream.aggregate_type, hop.name)

    def _handle(self, hop: Hop, left: float) -> None:
        self.local += 1
        self._aggregates.deliver(hop.stream, hop.envelope, left)

    def _lent(self, hop: Hop, owner: Member, sent: float, *, again: bool) -> None:
        """The owner has lent the aggregate: handle the command here, once those sent before are answered."""
        stream = hop.stream
        if not self.lending.borrow(stream, hop.name, owner, sent, again=again):
            self._end_of(hop)
            self._handle(hop, self._left(hop))
            return
        if len(self._under_way[stream]) > 1:
            self.lending.handovers.begin(stream, self.lending.terms.handover)
        if stream in self.lending.handovers:
            self.lending.handovers.hold(stream, partial(self._returned, hop), self._left(hop), returned=True)
            self._end_of(hop)
        else:
            self._end_of(hop)
            self._handle(hop, self._left(hop))

    def _returned(self, hop: Hop) -> None:
        if self.lending.has(hop.stream, hop.name):
            self._handle(hop, self._left(hop))
        else:  # it was asked back meanwhile
            self._begin(hop)
            self._send(hop)

    def _left(self, hop: Hop) -> float:
        return time_left(hop.seconds, hop.deadline, self._clock.monotonic())

    def _serves(self, hop: Hop) -> bool:
        member = self._announcement.member
        return (
            "aggregates" in member.roles
            and member.id not in hop.refused
            and any(
                name == hop.stream.aggregate_type and hop.name in commands
                for name, commands in member.commands
            )
        )

    def _wait_for_members(self, hop: Hop, left: float) -> None:
        """Try again when the members change; give up when the time of the sender is over."""
        if hop.told:
            left = min(left, hop.seconds)
        self._homeless.add(hop)
        hop.node, hop.sent = None, self._clock.monotonic()
        self._clock.call_later(left, lambda: self._not_served(hop))

    def _not_served(self, hop: Hop) -> None:
        if hop not in self._homeless:
            return
        self._homeless.discard(hop)
        served = {
            name
            for member in self.placement.members.values()
            if "aggregates" in member.roles and not member.leaving
            for name, _ in member.commands
        }
        command = type(hop.envelope.command).__name__
        error = NotServed(command, str(hop.stream), hop.seconds, served, hop.refused.values())
        self._finish(hop, Failed(error))

    def _answered(
        self, hop: Hop, owner: Member, peer: Peer, sent: float, answer: bytes | LinkFailure
    ) -> None:
        seconds = self._clock.monotonic() - sent
        if isinstance(answer, LinkFailure):
            self._observe_return(hop, owner, seconds, answer.reason)
            self._failed(hop, owner, peer, answer)
            return
        peer.answers += 1
        peer.seconds += seconds
        command = hop.envelope.command
        try:
            found = unpack_answer(answer, command, owner.name)
        except Exception as error:  # noqa: BLE001 - a class may have other fields there
            reason = f"it cannot be read here: {describe(error)}"
            kind = type(command).__name__
            found = RaisedThere(ReplyNotSent(kind, command.command_id, "unknown", owner.name, reason))
        if isinstance(found, RaisedThere):
            self._observe_return(hop, owner, seconds, found.error)
            self._finish(hop, Failed(self._of_node(found.error, hop, owner)))
        elif isinstance(found, NotServedHere):
            self._observe_return(hop, owner, seconds, found.reason)
            hop.refused[owner.id] = f"node {owner.name} says that {found.reason}"
            peer.sent_again += 1
            self._send(hop)
        elif isinstance(found, LentToUs):
            self._observe_return(hop, owner, seconds, None)
            self._lent(hop, owner, sent, again=found.again)
        else:
            self._observe_return(hop, owner, seconds, None)
            if isinstance(found, RecordedThere):
                if hop.envelope.future is not None:
                    hop.envelope.future.is_at(found.place)
                found = found.reply
            self._finish(hop, found)

    def _observe_return(
        self, hop: Hop, owner: Member, seconds: float, error: BaseException | str | None
    ) -> None:
        if self._recorder is not None:
            self._recorder.hop("hop returned", hop.stream, hop.envelope.command, owner.name, seconds, error)
        observed = self._observed
        if observed is not None:
            if observed.in_contexts:
                observing.hop_back(
                    observed, hop.stream, hop.envelope, owner.name, seconds=seconds, error=error
                )
            observed.hop_measured(owner.name, seconds, error)

    def _of_node(self, error: Exception, hop: Hop, owner: Member) -> Exception:
        """``error`` with the node that it comes from, where that matters to the caller."""
        named: Exception
        match error:
            case AskTimeout():
                named = AskTimeout(
                    f"{error.actor} on node {owner.name}", error.message, hop.seconds,
                    started=error.started or hop.may_be_handled,
                    doing=f"{error.doing}. It was one hop away from node {self._name}",
                )  # fmt: skip
            case MailboxFull():
                named = MailboxFull(f"{error.owner} on node {owner.name}", error.capacity)
            case _:
                return error
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        return named

    def _failed(self, hop: Hop, owner: Member, peer: Peer, failure: LinkFailure) -> None:
        """There is no answer: send the command to the next owner, if it can then take effect only once."""
        if failure.full:
            self._finish(hop, Failed(MailboxFull(f"the link to node {owner.name}", WINDOW)))
            return
        if failure.delivery is Delivery.UNKNOWN:
            hop.may_be_handled = True
        command = hop.envelope.command
        is_late = self._clock.monotonic() >= hop.deadline
        if self.is_closed:
            self._finish(hop, Failed(SystemNotRunning(self._system, "stopped")))
        elif is_late:
            doing = f"Node {self._name} sent it there over one hop, and has no answer: {failure.reason}"
            self._finish(
                hop,
                Failed(
                    AskTimeout(
                        f"{hop.stream} on node {owner.name}", type(command).__name__, hop.seconds,
                        started=hop.may_be_handled, doing=doing,
                    )
                ),
            )  # fmt: skip
        elif hop.may_be_handled and not self._aggregates.remember_commands:
            self._put_away(owner, failure.reason)
            reason = f"the answer of node {owner.name} was lost: {failure.reason}"
            self._finish(hop, Failed(self._unknown(hop, reason)))
        else:
            peer.sent_again += 1
            if failure.late:  # lost perhaps, or its answer; the owner handles it once
                hop.late += 1
            else:
                self._put_away(owner, failure.reason)
            self._send(hop)

    def _unknown(self, hop: Hop, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(str(hop.stream), reason, hop.envelope.command.command_id, hop.since)

    def _finish(self, hop: Hop, result: Any) -> None:
        """The command has ended. A node whose answer was lost may have handled it, whatever came after that."""
        if hop.may_be_handled and isinstance(result, Failed) and isinstance(result.error, NOT_HANDLED):
            result = Failed(
                self._unknown(hop, f"the answer of a node was lost, then: {describe(result.error)}")
            )
        self._end(hop.stream, hop.envelope, result)
        self._end_of(hop)

    def _end(self, stream: StreamId, envelope: CommandEnvelope, result: Any) -> None:
        self._note_end(stream, envelope, result)
        if self._observed is not None and self._observed.in_contexts:
            error = result.error if isinstance(result, Failed) else None
            observing.end(self._observed, stream, envelope, error)
        if envelope.future is None:
            if isinstance(result, Failed):  # it was told
                self._dead.add(str(stream), envelope.command, describe(result.error))
        else:
            envelope.answer(result, self._aggregates.log)

    def _note_end(self, stream: StreamId, envelope: CommandEnvelope, result: Any) -> None:
        if self._recorder is None:
            return
        error = result.error if isinstance(result, Failed) else None
        position = None if envelope.future is None else envelope.future.position
        self._recorder.returned(stream, envelope.command, _asked(envelope), position, error)

    def close(self) -> None:
        """End what waits for a node that serves it; the rest has ended with the link."""
        for hop in tuple(self._homeless):
            self._finish(hop, Failed(SystemNotRunning(self._system, "stopped")))
        self._homeless.clear()


def _asked(envelope: CommandEnvelope) -> float:
    return envelope.asked if envelope.future is None else envelope.future.asked
