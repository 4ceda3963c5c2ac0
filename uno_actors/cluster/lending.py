"""A node as lender and borrower of aggregates: it carries out what `uno_actors.cluster.loans` decides.

Loans are only a matter of speed, as ownership is: the expected version of the stream stays the fence. So a message
about a loan that is lost, late or wrong costs time and breaks no promise.
"""

from collections.abc import Callable
from functools import partial

from uno_actors.aggregates.directory import Aggregates
from uno_actors.clock import Clock
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.handovers import Handovers
from uno_actors.cluster.links.port import Answer, Link, LinkFailure
from uno_actors.cluster.loans import Borrowed, Ledger, Terms, Verdict
from uno_actors.cluster.placement import Placement, serves
from uno_actors.cluster.wire import NO_REPLY, lent_answer, recall_request
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member

LOOK_AGAIN = 0.002
"""Seconds after which a node first looks again whether an aggregate that it gives up has finished its commands."""
IN_NO_HURRY = 0.25
"""The same where nothing waits for that, and at most."""


class Lending:
    """The loans of one node. Lives on the event loop.

    Args:
        link: To the other nodes.
        announcement: Of this node.
        aggregates: Of this node.
        clock: Measures all times.
        placement: Returns who owns what.
        put_away: Called with a node whose link has failed, and the reason.
        terms: Of the loans; the nodes of a cluster need not have equal ones.

    Attributes:
        ledger: What this node has lent, and to whom it may lend.
        handovers: The aggregates that are on their way to this node.
        recalled: Loans that this node has asked back.
    """

    def __init__(
        self,
        link: Link,
        announcement: Announcement,
        aggregates: Aggregates,
        *,
        clock: Clock,
        placement: Callable[[], Placement],
        put_away: Callable[[Member, str], None],
        terms: Terms,
    ) -> None:
        self.ledger = Ledger(terms)
        self.handovers = Handovers(clock)
        self.recalled = 0
        self._is_closed = False
        self._borrowed: dict[StreamId, Borrowed] = {}  # the one that was renewed longest ago first
        self._link = link
        self._announcement = announcement
        self._aggregates = aggregates
        self._clock = clock
        self._placement = placement
        self._put_away = put_away
        self._id = announcement.member.id
        self._serves: frozenset[tuple[str, str]] = frozenset()
        aggregates.when_overtaken = self._overtaken

    @property
    def terms(self) -> Terms:
        """Of the loans of this node."""
        return self.ledger.terms

    # --- the owner ---

    def is_asked_elsewhere(self, stream: StreamId) -> bool:
        """Whether other nodes have asked for an aggregate of this one, so that `asked` must know who else does."""
        return stream in self.ledger or stream in self.handovers

    def asked(self, stream: StreamId, borrower: str = "") -> Verdict:
        """Note a command for an aggregate of this node; ask the aggregate back if another node has it.

        Args:
            stream: Of the aggregate.
            borrower: Id of the node that it comes from, if that takes loans; empty for the own program.
        """
        now = self._clock.monotonic()
        verdict = self.ledger.asked(stream, borrower, now)
        if verdict is Verdict.LEND:
            if stream in self.handovers or not self._owns(stream, self._placement()):
                return Verdict.SERVE
            self.ledger.lend(stream, now)
            # The commands that it still has are answered here; the borrower waits for these answers.
            self._let_go(stream, _nothing_waits, now + self.terms.seconds, IN_NO_HURRY)
        elif verdict is Verdict.RECALL:
            self._recall(stream, now)
        return verdict

    def answer(self, verdict: Verdict, answer: Answer) -> bool:
        """Answer a command of another node that it is to handle itself; return whether it is."""
        if verdict not in {Verdict.LEND, Verdict.RENEW}:
            return False
        answer(lent_answer(again=verdict is Verdict.RENEW))
        return True

    def _owns(self, stream: StreamId, placement: Placement) -> bool:
        owner = placement.owner(stream, "")
        return owner is not None and owner.id == self._id

    def _forget(self, stream: StreamId) -> None:
        del self.ledger.lent[stream]
        self._aggregates.put_away(stream)

    def _recall(self, stream: StreamId, now: float) -> None:
        borrower = self._placement().members.get(self.ledger.lent[stream].node)
        self.ledger.end(stream, now)
        self.recalled += 1
        if borrower is None or borrower.address is None:
            self._aggregates.put_away(stream)
            return
        seconds = self.terms.handover
        self.handovers.begin(stream, seconds)
        self._link.request(
            borrower.address, recall_request(stream), seconds, partial(self._given_up, stream, borrower)
        )

    def _given_up(self, stream: StreamId, borrower: Member, answer: bytes | LinkFailure) -> None:
        self._aggregates.put_away(stream)  # what it knew is old
        self.handovers.end(stream)
        if isinstance(answer, LinkFailure) and not (answer.full or self._is_closed):
            for each in [each for each, lent in self.ledger.lent.items() if lent.node == borrower.id]:
                self._forget(each)  # their next command need not wait
            if not answer.late:
                self._put_away(borrower, answer.reason)

    # --- the borrower ---

    def borrower(self, aggregate_type: str, command: str) -> str | None:
        """Id of this node if it takes aggregates of the type on loan, to handle commands of this name."""
        if (aggregate_type, command) not in self._serves:
            return None
        if len(self._borrowed) >= self._limit:
            self._forget_late(self._clock.monotonic() - self.terms.seconds)
        return self._id if len(self._borrowed) < self._limit else None

    @property
    def _limit(self) -> int:
        return min(len(self.ledger.lent) + self.terms.ahead, self.terms.most)

    def has(self, stream: StreamId, command: str) -> bool:
        """Whether this node handles commands of this name for an aggregate of another node."""
        loan = self._borrowed.get(stream)
        if loan is None or (stream.aggregate_type, command) not in self._serves:
            return False
        return self._clock.monotonic() < loan.until

    def borrow(self, stream: StreamId, command: str, owner: Member, sent: float, *, again: bool) -> bool:
        """Take an aggregate that its owner has lent; return whether there is a loan from now on.

        Args:
            stream: Of the aggregate.
            command: Name of the command that was answered with the loan.
            owner: Has lent it.
            sent: When the command was sent.
            again: Whether the owner has handled no commands since it lent the aggregate before.
        """
        known = self._borrowed.pop(stream, None)
        if not (again and known is not None):
            self._aggregates.put_away(stream)  # what this node knew of it is old
        placed = self._placement().owner(stream, command)
        if (stream.aggregate_type, command) not in self._serves or placed is None or placed.id != owner.id:
            return False
        self._borrowed[stream] = Borrowed(owner.id, command, sent + self.terms.seconds)
        return True

    def give_up(self, stream: StreamId, answer: Answer) -> None:
        """The owner wants an aggregate back: finish its commands, put it away, and answer."""
        self._borrowed.pop(stream, None)
        self.handovers.end(stream)
        self._let_go(stream, answer, self._clock.monotonic() + self.terms.handover, LOOK_AGAIN)

    def _let_go(self, stream: StreamId, answer: Answer, until: float, pause: float) -> None:
        """Put an aggregate away once its commands have ended, but wait no longer than that."""
        if self._aggregates.put_away(stream) or self._clock.monotonic() >= until:
            answer(NO_REPLY)
        else:
            longer = min(2 * pause, IN_NO_HURRY)
            self._clock.call_later(pause, lambda: self._let_go(stream, answer, until, longer))

    def all_answered(self, stream: StreamId) -> None:
        """The owner of an aggregate has answered all commands that this node has sent it."""
        if stream in self._borrowed:
            self.handovers.end(stream)

    def _overtaken(self, stream: StreamId) -> None:
        """Another node has continued the stream of an aggregate: it has not heard of the loan, or it has ended."""
        self._borrowed.pop(stream, None)

    def _forget_late(self, until: float) -> None:
        while self._borrowed:
            stream, loan = next(iter(self._borrowed.items()))
            if until < loan.until:
                break
            del self._borrowed[stream]

    # --- both ---

    def holder(self, stream: StreamId, command: str, owner: Member | None) -> Member | None:
        """The node that has an aggregate, as far as this one knows: its owner, or the one that has it on loan."""
        if self.has(stream, command):
            return self._announcement.member
        lent = self.ledger.lent.get(stream)
        if owner is None or owner.id != self._id or lent is None or self._clock.monotonic() >= lent.until:
            return owner
        return self._placement().members.get(lent.node, owner)

    def place(self, placement: Placement) -> None:
        """The members have changed: end the loans whose owner or borrower is another one now."""
        member = self._announcement.member
        self._serves = frozenset(
            (name, command)
            for name, commands in member.commands
            for command in ("", *commands)
            if serves(member, name, command)
        )
        for stream, lent in list(self.ledger.lent.items()):
            borrower = placement.members.get(lent.node)
            can_keep = borrower is not None and serves(borrower, stream.aggregate_type, "")
            if not can_keep or not self._owns(stream, placement):
                self._forget(stream)
        for stream, loan in list(self._borrowed.items()):
            owner = placement.owner(stream, loan.command)
            is_served = (stream.aggregate_type, loan.command) in self._serves
            if owner is None or owner.id != loan.owner or not is_served:
                del self._borrowed[stream]
                if owner is None or owner.id != self._id:
                    self._aggregates.put_away(stream)
                self.handovers.end(stream)

    def close(self) -> None:
        """Let go of the commands that wait: this node handles no more."""
        self._is_closed = True
        self.handovers.end_all()

    @property
    def lent(self) -> int:
        """Aggregates that other nodes have on loan now."""
        self.ledger.forget_late(self._clock.monotonic())
        return len(self.ledger.lent)

    @property
    def borrowed(self) -> int:
        """Aggregates of other nodes that this one has on loan now."""
        now = self._clock.monotonic()
        return sum(now < loan.until for loan in self._borrowed.values())


def _nothing_waits(_: bytes) -> None:
    pass
