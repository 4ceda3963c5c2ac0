"""Loans: which aggregates an owner lends to the only node that asks for them. Pure rules, without links or clocks.

An owner that serves an aggregate for one other node alone has no use for it: each command makes a hop for nothing. So
after some commands from one node it lends the aggregate, and that node handles its commands itself. A command from
anywhere else ends the loan. Where several nodes ask, that many in a row come by chance: there far more are needed, and
still more after each loan that ended soon.

Lending is by aggregate, not by shard: a shard has aggregates of clients of several nodes as soon as there are more
aggregates than shards, and none would ever be lent.
"""

import enum
from dataclasses import dataclass

from uno_actors.store.codec import StreamId


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When aggregates are lent, and for how long.

    Attributes:
        commands: Commands from one node, and from no other, after which the next one is answered with a loan.
        span: Seconds over which they must have come, so that the batches of several nodes are not taken for one.
        seconds: For which a loan lasts. A command after that goes to the owner, who renews it.
        harder: So many times more commands in a row are needed where another node has asked before, and again after
            each loan that ended soon.
        hardest: Maximum number of commands in a row that are needed.
        most: Maximum number of aggregates that are lent, that are borrowed, and whose commands are counted; 0 for no
            loans.
        ahead: Aggregates that a node may have borrowed beyond those that it has lent. Loans change which node has an
            aggregate, and must not gather on one node what the cluster divides.
        handover: Maximum seconds for which commands wait until the other node has let go of their aggregate. None waits
            longer than half of its time.
    """

    commands: int = 3
    span: float = 0.25
    seconds: float = 10.0
    harder: int = 8
    hardest: int = 4096
    most: int = 16_384
    ahead: int = 256
    handover: float = 2.0

    @property
    def remembered(self) -> float:
        """Seconds for which the owner remembers a loan: longer than it lasts, so that it can be renewed."""
        return 2 * self.seconds

    @property
    def lasting(self) -> float:
        """Seconds after which a loan that ends was worth it: the next one is not harder to get."""
        return 3 * self.seconds


TERMS = Terms()
"""Of a node, unless it stays out of loans; the nodes of a cluster need not have equal ones."""
NO_LOANS = Terms(most=0)
"""Of a node that lends nothing and borrows nothing."""


class Verdict(enum.Enum):
    """What an owner does with a command of another node."""

    SERVE = "serve"
    """It handles the command."""
    LEND = "lend"
    """It lends the aggregate to that node, which handles the command."""
    RENEW = "renew"
    """That node has it on loan already, and handles the command."""
    RECALL = "recall"
    """It asks the aggregate back from another node, and then handles the command."""


@dataclass(slots=True)
class Row:
    """Commands for an aggregate that came in a row from one node.

    Attributes:
        node: Id of that node; empty if it was this one, or one that takes no loans.
        count: How many.
        since: When the first of them came.
        needed: How many are needed for a loan.
    """

    node: str
    count: int
    since: float
    needed: int


@dataclass(frozen=True, slots=True)
class Lent:
    """A loan, as the owner remembers it.

    Attributes:
        node: Id of the node that has the aggregate.
        since: When it was lent.
        until: When the owner forgets the loan unless it is renewed.
        needed: How many commands in a row were needed for it.
    """

    node: str
    since: float
    until: float
    needed: int


class Ledger:
    """What an owner remembers of its aggregates that other nodes ask for.

    Args:
        terms: See there.

    Attributes:
        rows: Of aggregates that are not lent; those that began first are forgotten first.
        lent: The loans, by aggregate; the one that was renewed longest ago first.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.rows: dict[StreamId, Row] = {}
        self.lent: dict[StreamId, Lent] = {}

    def __contains__(self, stream: StreamId) -> bool:
        return stream in self.rows or stream in self.lent

    def asked(self, stream: StreamId, node: str, now: float) -> Verdict:
        """Note a command for an aggregate.

        Args:
            stream: Of the aggregate.
            node: Id of the node that it came from, if that takes loans; otherwise empty.
            now: Time of its arrival.

        Returns:
            What to do. After `Verdict.LEND` the caller may call `lend`, after `Verdict.RECALL` it calls `end`.
        """
        lent = self.lent.get(stream)
        if lent is not None:
            if now < lent.until:
                if node != lent.node:
                    return Verdict.RECALL
                self._lend(stream, Lent(node, lent.since, now + self.terms.remembered, lent.needed))
                return Verdict.RENEW
            self.end(stream, now)
        row = self.rows.get(stream)
        if row is None:
            if node:
                self._count(stream, Row(node, 1, now, self.terms.commands))
        elif row.node != node:
            row.node, row.count, row.since = node, 1, now
            row.needed = max(row.needed, self.terms.commands * self.terms.harder)
        elif node:
            row.count += 1
            if row.count > row.needed and now - row.since >= self.terms.span and self._has_room(now):
                return Verdict.LEND
        return Verdict.SERVE

    def lend(self, stream: StreamId, now: float) -> None:
        """Note that the aggregate is lent to the node whose command has just come."""
        row = self.rows.pop(stream)
        self._lend(stream, Lent(row.node, now, now + self.terms.remembered, row.needed))

    def end(self, stream: StreamId, now: float) -> None:
        """Note that a loan has ended; if that was soon, the next one is harder to get."""
        lent = self.lent.pop(stream)
        if now - lent.since < self.terms.lasting:
            needed = min(lent.needed * self.terms.harder, self.terms.hardest)
            self._count(stream, Row("", 0, now, needed))

    def forget_late(self, now: float) -> None:
        """Forget the loans that were not renewed in time."""
        while self.lent:
            stream, lent = next(iter(self.lent.items()))
            if now < lent.until:
                break
            del self.lent[stream]

    def _lend(self, stream: StreamId, lent: Lent) -> None:
        self.lent.pop(stream, None)  # it becomes the last
        self.lent[stream] = lent

    def _has_room(self, now: float) -> bool:
        if len(self.lent) >= self.terms.most:
            self.forget_late(now)
        return len(self.lent) < self.terms.most

    def _count(self, stream: StreamId, row: Row) -> None:
        if not self.terms.most:
            return
        if len(self.rows) >= self.terms.most:
            del self.rows[next(iter(self.rows))]
        self.rows[stream] = row


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A loan, as the node sees it that has the aggregate.

    Attributes:
        owner: Id of the node that has lent it.
        command: Name of the command that was answered with it, as nodes announce it.
        until: When it ends unless it is renewed.
    """

    owner: str
    command: str
    until: float
