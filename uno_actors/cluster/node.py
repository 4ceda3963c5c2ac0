"""A node of a cluster: it routes the commands of its system to their owners, and serves those of other nodes.

Ownership is only a matter of speed. A node serves every command that reaches it, even if it believes that another
node is its owner, and passes none on: a command makes at most one hop. Two nodes that both think themselves the owner
meet at the expected version of the stream. An aggregate for which one other node alone asks is lent to that node; see
`uno_actors.cluster.loans`.

A command whose answer is lost is sent to the next owner, with the same ``command_id`` and the position of the log that
was known when it was first sent: the aggregate looks for it from there, so that it takes effect once. (A command that
records nothing is handled again.) Its time, the ids of its cause and its conversation continue on the other node. Asks
that form a cycle over several nodes are not found; they end with `AskTimeout`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.aggregates import observed as observing
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.clock import Clock
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.handovers import Again
from uno_actors.cluster.hops import Hop, time_left
from uno_actors.cluster.links.port import Answer, Link, LinkFailure
from uno_actors.cluster.loans import Terms
from uno_actors.cluster.outgoing import Outgoing
from uno_actors.cluster.placement import Placement, shard_of
from uno_actors.cluster.served import CommandNames, NotKnownHere, ServedReply
from uno_actors.cluster.statistics import ClusterStatistics
from uno_actors.cluster.wire import (
    NO_REPLY,
    HandledRequest,
    Leaving,
    Recall,
    Request,
    StateRequest,
    leaving_request,
    not_served_answer,
    state_answer,
    unpack_request,
)
from uno_actors.domain.commands import Command
from uno_actors.errors import (
    describe,
)
from uno_actors.logs import Logger, get_logger
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member


class Node:
    """This node. Lives on the event loop.

    Args:
        link: To the other nodes.
        announcement: Of this node.
        names: The commands that it serves.
        aggregates: Handle them.
        known_position: Returns a position that the log of a stream has reached.
        dead: Where commands go that were told and failed.
        clock: Measures all times.
        ttl: Seconds for which a node is left alone after its link has failed.
        system: Name of the system, for errors.
        terms: Of its loans.
        log: Has the names of the system bound.

    Attributes:
        announcement: Of this node.
        lending: Its loans.
        serve_handled: Answers the questions of other nodes for the handlers of this one.
    """

    def __init__(
        self,
        link: Link,
        announcement: Announcement,
        names: CommandNames,
        aggregates: Aggregates,
        *,
        known_position: Callable[[StreamId], int],
        dead: DeadMessages,
        clock: Clock,
        ttl: float,
        system: str,
        terms: Terms,
        log: Logger | None = None,
    ) -> None:
        self.announcement = announcement
        self.serve_handled: Callable[[HandledRequest, Answer], None] = _knows_no_handler
        self._link = link
        self._names = names
        self._aggregates = aggregates
        self._clock = clock
        self._ttl = ttl
        self._id = announcement.member.id
        self._name = announcement.member.name
        self._owners: dict[tuple[str, type[Command[Any]]], tuple[Callable[[int], Member | None], str]] = {}
        self._away: dict[str, float] = {}  # until when nodes are left alone whose links have failed
        self._addresses: dict[str, str] = {}
        self._local = 0
        self._outgoing = Outgoing(
            link,
            announcement,
            aggregates,
            known_position=known_position,
            dead=dead,
            clock=clock,
            put_away=self._put_away,
            system=system,
            terms=terms,
        )
        self.lending = self._outgoing.lending
        self._log = (log or get_logger(node=self._name)).bind(actor="node")

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet: sent to other nodes, or waiting for one to let go of their aggregate."""
        return self._outgoing.waiting + self.lending.handovers.waiting

    def under_way(self) -> list[Hop]:
        """The commands that were sent to other nodes and are not answered yet."""
        return self._outgoing.under_way()

    @property
    def name(self) -> str:
        """Name of this node."""
        return self._name

    # --- members ---

    async def start(self) -> None:
        """Accept the requests of other nodes, and route commands by the members from now on.

        The address is part of the announcement, which starts after this.

        Raises:
            LinkUnavailable: It cannot accept requests at its address.
        """
        address = await self._link.start(self._id, self._serve)
        self.announcement.when_changed(self._members_changed)
        self.announcement.change(address=address)
        self._log.info("node accepts requests", address=address)

    def serve_types(self) -> None:
        """Announce the commands of the aggregate types that the system serves now."""
        if "aggregates" in self.announcement.member.roles:
            self.announcement.change(commands=self._names.announced())

    def owner(self, stream: StreamId, command: str) -> Member | None:
        """The node that handles commands of this name for an aggregate; ``None`` if no node serves them."""
        return self.lending.holder(stream, command, self._outgoing.placement.owner(stream, command))

    def _members_changed(self) -> None:
        addresses = {member.id: member.address for member in self.announcement.others if member.address}
        for member_id, address in self._addresses.items():
            if addresses.get(member_id) != address:
                self._link.forget(address)  # what it has not answered is sent to others
        self._addresses = addresses
        self._place()

    def _place(self) -> None:
        now = self._clock.monotonic()
        self._away = {member_id: until for member_id, until in self._away.items() if until > now}
        self._owners.clear()
        self._outgoing.place(
            Placement(member for member in self.announcement.members if member.id not in self._away)
        )

    def _put_away(self, member: Member, reason: str) -> None:
        if member.id in self._away:
            return
        self._log.warning("node cannot be reached", other=member.name, reason=reason)
        self._away[member.id] = self._clock.monotonic() + self._ttl
        self._clock.call_later(self._ttl, self._place)
        self._place()

    # --- routing ---

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, seconds: float) -> None:
        """Pass a command to the owner of its aggregate: here, or on another node."""
        kind = envelope.command.__class__
        owner_of, name = self._owners.get((stream[0], kind)) or self._owner_of(stream, kind)
        owner = owner_of(shard_of(stream))
        lending = self.lending
        if owner is not None and owner.id == self._id:
            if lending.is_asked_elsewhere(stream):
                lending.asked(stream)
        elif self._outgoing.is_closed:
            self._aggregates.deliver(stream, envelope, seconds)  # which refuses it
            return
        elif not lending.has(stream, name):
            self._outgoing.route(stream, envelope, name, seconds, owner)
            return
        if stream in lending.handovers:
            again = self._again(stream, envelope, seconds, self.deliver)
            lending.handovers.hold(stream, again, seconds)
        else:
            self._local += 1
            self._aggregates.deliver(stream, envelope, seconds)

    def _again(
        self,
        stream: StreamId,
        envelope: CommandEnvelope,
        seconds: float,
        deliver: Callable[[StreamId, CommandEnvelope, float], None],
    ) -> Again:
        """What delivers a command that has waited for its aggregate, with the time that is left."""
        now = self._clock.monotonic
        deadline = now() + seconds
        return lambda: deliver(stream, envelope, time_left(seconds, deadline, now()))

    def handles_here(self, stream: StreamId, kind: type[Command[Any]]) -> bool:
        """Whether this node handles the commands of this class for an aggregate."""
        owner_of, name = self._owners.get((stream[0], kind)) or self._owner_of(stream, kind)
        if stream in self.lending.handovers:
            return False
        owner = owner_of(shard_of(stream))
        if owner is None or owner.id != self._id:
            return self.lending.has(stream, name)
        return stream not in self.lending.ledger.lent

    def _owner_of(
        self, stream: StreamId, kind: type[Command[Any]]
    ) -> tuple[Callable[[int], Member | None], str]:
        """What finds the owners of a command's aggregates by their shards, and the announced name of the command."""
        name = self._names.handled_as(stream.aggregate_type, kind)
        if not kind._travels:
            return (lambda _: self.announcement.member), name
        found = self._outgoing.placement.table(stream.aggregate_type, name).owner, name
        self._owners[stream.aggregate_type, kind] = found
        return found

    # --- serving ---

    def _serve(self, body: bytes, answer: Answer) -> None:
        try:
            request = unpack_request(body)
            if not isinstance(request, Request):
                self._serve_node(request, answer)
                return
            command = self._names.command(request)
            if "aggregates" not in self.announcement.member.roles:
                raise NotKnownHere("it has not the role 'aggregates'")  # noqa: TRY301 - as all that it cannot serve
        except NotKnownHere as error:
            answer(not_served_answer(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whatever a node of another version has sent
            answer(not_served_answer(f"it cannot read the request: {describe(error)}"))
            return
        stream = StreamId(request.aggregate_type, request.aggregate_id)
        if self.lending.answer(self.lending.asked(stream, request.borrower or ""), answer):
            return
        self._outgoing.peers[request.sender].served += 1
        reply = ServedReply(
            stream,
            command,
            answer,
            self._name,
            request.told,
            lambda: self._outgoing.is_closed,
            request.wants_place,
        )
        envelope = CommandEnvelope(command, reply)
        if request.since is not None:
            envelope.look_back(request.since)
        if self._aggregates.recorder is not None:
            self._aggregates.recorder.hop("hop served", stream, command, request.sender)
        observed = self._aggregates.observed
        if observed is not None and observed.in_contexts:
            observing.serve(observed, stream, envelope, request.sender, request.trace)
        seconds = max(0.0, request.seconds)
        if stream in self.lending.handovers:
            again = self._again(stream, envelope, seconds, self._aggregates.deliver)
            self.lending.handovers.hold(stream, again, seconds)
        else:
            self._aggregates.deliver(stream, envelope, seconds)

    def _serve_node(self, request: Leaving | StateRequest | HandledRequest | Recall, answer: Answer) -> None:
        """Answer a request that does not carry a command."""
        match request:
            case Leaving():
                self.announcement.note_leaving(request.member)
                answer(NO_REPLY)
            case StateRequest():
                answer(state_answer(self.statistics()))
            case HandledRequest():
                self.serve_handled(request, answer)
            case Recall():
                self.lending.give_up(StreamId(request.aggregate_type, request.aggregate_id), answer)

    def ask_handled(
        self, member: Member, body: bytes, seconds: float, done: Callable[[bytes | LinkFailure], None]
    ) -> None:
        """Ask another node whether its handler has come to a position; for the arguments see `Link.request`."""
        self._link.request(member.address or "", body, seconds, done)

    # --- leaving ---

    async def leave(self) -> None:
        """Tell the other nodes that this one leaves. Return when all have heard or are out of reach.

        Requests that are on their way are still served, until `close`.
        """
        others = [member for member in self.announcement.others if member.address]
        if not others:
            return
        heard = asyncio.Event()
        left = {member.id for member in others}

        def done(member_id: str) -> None:
            left.discard(member_id)
            if not left:
                heard.set()

        for member in others:
            address = member.address or ""
            self._link.request(
                address, leaving_request(self._id), self.announcement.renewed_every,
                lambda _, member_id=member.id: done(member_id),  # type: ignore[misc]
            )  # fmt: skip
        await heard.wait()
        self._log.info("node leaves", told=len(others))

    def refuse(self) -> None:
        """Handle no more commands of this system."""
        self._outgoing.is_closed = True
        self.lending.close()

    async def close(self) -> None:
        """Close the link; idempotent. Other nodes ask others for what they still wait for."""
        self.refuse()
        await self._link.close()
        self._outgoing.close()

    # --- statistics ---

    def statistics(self) -> ClusterStatistics:
        """What this node has routed and served."""
        outgoing = self._outgoing
        peers = {name: peer.statistics() for name, peer in outgoing.peers.items()}
        return ClusterStatistics(
            node=self._name,
            local=self._local + outgoing.local,
            sent=sum(peer.sent for peer in peers.values()),
            sent_again=sum(peer.sent_again for peer in peers.values()),
            served=sum(peer.served for peer in peers.values()),
            waiting=self.waiting,
            homeless=outgoing.homeless,
            peers=peers,
            lent=self.lending.lent,
            borrowed=self.lending.borrowed,
            recalled=self.lending.recalled,
        )


def _knows_no_handler(_: HandledRequest, answer: Answer) -> None:
    answer(not_served_answer("it runs no handlers yet"))
