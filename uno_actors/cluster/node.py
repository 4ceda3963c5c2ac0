"""A node of a cluster: it routes the commands of its system to their owners, and serves those of other nodes.

Ownership is only a matter of speed. A node serves every command that reaches it, even if it believes that another
node is its owner, and passes none on: a command makes at most one hop. Two nodes that both think themselves the owner
meet at the expected version of the stream.

A command whose answer is lost is sent to the next owner, with the same ``command_id`` and the position of the log that
was known when it was first sent: the aggregate looks for it from there, so that it takes effect once. (A command that
records nothing is handled again.) Its time, the ids of its cause and its conversation continue on the other node. Asks
that form a cycle over several nodes are not found; they end with `AskTimeout`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.envelope import CommandEnvelope, Failed
from uno_actors.clock import Clock
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.hops import TOLD_FOR, Hop
from uno_actors.cluster.links.port import LARGEST, WINDOW, Answer, Delivery, Link, LinkFailure
from uno_actors.cluster.placement import Placement, shard_of
from uno_actors.cluster.served import CommandNames, NotKnownHere, ServedReply
from uno_actors.cluster.statistics import ClusterStatistics, PeerStatistics
from uno_actors.cluster.wire import (
    NO_REPLY,
    Leaving,
    NotServedHere,
    RaisedThere,
    command_request,
    leaving_request,
    not_served_answer,
    unpack_answer,
    unpack_request,
)
from uno_actors.domain.commands import Command
from uno_actors.errors import (
    AskTimeout,
    InvalidCommand,
    MailboxFull,
    NotServed,
    OutcomeUnknown,
    ReplyNotSent,
    SystemNotRunning,
    describe,
)
from uno_actors.logs import get_logger
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member

GRACE = 0.25
"""Seconds that a sender waits longer than its time for another node, which knows better why there is no reply."""


@dataclass(slots=True)
class _Peer:
    """Counters of another node; see `PeerStatistics`."""

    sent: int = 0
    sent_again: int = 0
    served: int = 0
    answers: int = 0
    seconds: float = 0.0


class Node:
    """This node. Lives on the event loop.

    Args:
        link: To the other nodes.
        announcement: Of this node.
        names: The commands that it serves.
        aggregates: Handle them.
        known_position: Returns a position that the log has reached.
        dead: Where commands go that were told and failed.
        clock: Measures all times.
        ttl: Seconds for which a node is left alone after its link has failed.
        system: Name of the system, for errors.
    """

    def __init__(
        self,
        link: Link,
        announcement: Announcement,
        names: CommandNames,
        aggregates: Aggregates,
        *,
        known_position: Callable[[], int],
        dead: DeadMessages,
        clock: Clock,
        ttl: float,
        system: str,
    ) -> None:
        self.announcement = announcement
        self._link = link
        self._names = names
        self._aggregates = aggregates
        self._known_position = known_position
        self._dead = dead
        self._clock = clock
        self._ttl = ttl
        self._system = system
        self._id = announcement.member.id
        self._name = announcement.member.name
        self._placement = Placement()
        self._owners: dict[tuple[str, type[Command[Any]]], Callable[[int], Member | None]] = {}
        self._away: dict[
            str, float
        ] = {}  # nodes whose links have failed, with the time until which they are away
        self._addresses: dict[str, str] = {}
        self._waiting: set[Hop] = set()
        self._homeless: set[Hop] = set()
        self._peers: defaultdict[str, _Peer] = defaultdict(_Peer)
        self._local = 0
        self._is_closed = False
        self._log = get_logger(node=self._name)

    @property
    def waiting(self) -> int:
        """Commands sent to other nodes that are not answered yet."""
        return len(self._waiting)

    @property
    def name(self) -> str:
        """Name of this node."""
        return self._name

    # --- members ---

    async def start(self) -> None:
        """Accept the requests of other nodes, announce this one, and route commands from now on.

        Raises:
            LinkUnavailable: It cannot accept requests at its address.
            StoreUnavailable: It cannot announce itself.
        """
        address = await self._link.start(self._id, self._serve)
        self.announcement.change(address=address)
        self.announcement.when_changed(self._members_changed)
        await self.announcement.start()
        self._members_changed()
        self._log.info("node joined", address=address, members=len(self.announcement.members))

    def serve_types(self) -> None:
        """Announce the commands of the aggregate types that the system serves now."""
        self.announcement.change(commands=self._names.announced())

    def owner(self, stream: StreamId, command: str) -> Member | None:
        """The node that this one sends commands of this name for an aggregate to; ``None`` if no node serves them."""
        return self._placement.owner(stream, command)

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
        self._placement = Placement(
            member for member in self.announcement.members if member.id not in self._away
        )
        self._owners.clear()
        homeless, self._homeless = self._homeless, set()
        for hop in homeless:
            hop.refused.clear()
            self._send(hop)

    def _put_away(self, member: Member, reason: str) -> None:
        if member.id not in self._away:
            self._log.warning("node cannot be reached", other=member.name, reason=reason)
        self._away[member.id] = self._clock.monotonic() + self._ttl
        self._clock.call_later(self._ttl, self._place)
        self._place()

    # --- routing ---

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, seconds: float) -> None:
        """Pass a command to the owner of its aggregate: here, or on another node."""
        kind = envelope.command.__class__
        owner_of = self._owners.get((stream[0], kind)) or self._owner_of(stream, kind)
        owner = owner_of(shard_of(stream))
        if owner is not None and owner.id == self._id:
            self._local += 1
            self._aggregates.deliver(stream, envelope, seconds)
        elif self._is_closed:
            self._aggregates.deliver(
                stream, envelope, seconds
            )  # it refuses the command as it is to be refused
        else:
            self._route(stream, envelope, seconds)

    def _owner_of(self, stream: StreamId, kind: type[Command[Any]]) -> Callable[[int], Member | None]:
        name = self._names.handled_as(stream.aggregate_type, kind)
        owner_of = self._placement.table(stream.aggregate_type, name).owner
        self._owners[stream.aggregate_type, kind] = owner_of
        return owner_of

    def _route(self, stream: StreamId, envelope: CommandEnvelope, seconds: float) -> None:
        name = self._names.handled_as(stream.aggregate_type, type(envelope.command))
        since = self._known_position()
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
        self._waiting.add(hop)
        self._send(hop)

    def _send(self, hop: Hop) -> None:
        """Send a command to its owner, which may have changed since it was sent before."""
        owner = self._placement.owner(hop.stream, hop.name, hop.unfit)
        now = self._clock.monotonic()
        left = max(
            0.0, round(hop.deadline - now, 6)
        )  # mostly that of all asks, so that they share one timer there
        if owner is None and self._serves(hop):  # also while it leaves, if there is no other
            owner = self.announcement.member
        if owner is None or owner.address is None:
            self._wait_for_members(hop, left)
            return
        if hop.may_be_handled:
            hop.envelope.look_back(hop.since)
        if owner.id == self._id:
            self._waiting.discard(hop)
            self._local += 1
            self._aggregates.deliver(hop.stream, hop.envelope, left)
            return
        peer = self._peers[owner.name]
        peer.sent += 1
        body = command_request(
            hop.stream,
            hop.envelope.command,
            hop.payload,
            seconds=left,
            since=hop.since if hop.envelope.looks_back else None,
            told=hop.told,
            sender=self._name,
        )
        self._link.request(
            owner.address, body, left + GRACE, lambda answer: self._answered(hop, owner, peer, now, answer)
        )

    def _serves(self, hop: Hop) -> bool:
        member = self.announcement.member
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
        self._clock.call_later(left, lambda: self._not_served(hop))

    def _not_served(self, hop: Hop) -> None:
        if hop not in self._homeless:
            return
        self._homeless.discard(hop)
        served = {
            name
            for member in self._placement.members.values()
            if "aggregates" in member.roles and not member.leaving
            for name, _ in member.commands
        }
        command = type(hop.envelope.command).__name__
        error = NotServed(command, str(hop.stream), hop.seconds, served, hop.refused.values())
        self._finish(hop, Failed(error))

    def _answered(
        self, hop: Hop, owner: Member, peer: _Peer, sent: float, answer: bytes | LinkFailure
    ) -> None:
        if isinstance(answer, LinkFailure):
            self._failed(hop, owner, peer, answer)
            return
        peer.answers += 1
        peer.seconds += self._clock.monotonic() - sent
        command = hop.envelope.command
        try:
            found = unpack_answer(answer, command, owner.name)
        except Exception as error:  # noqa: BLE001 - a class may have other fields there
            reason = f"it cannot be read here: {describe(error)}"
            kind = type(command).__name__
            found = RaisedThere(ReplyNotSent(kind, command.command_id, "unknown", owner.name, reason))
        if isinstance(found, RaisedThere):
            self._finish(hop, Failed(self._of_node(found.error, hop, owner)))
        elif isinstance(found, NotServedHere):
            hop.refused[owner.id] = f"node {owner.name} says that {found.reason}"
            peer.sent_again += 1
            self._send(hop)
        else:
            self._finish(hop, found)

    def _of_node(self, error: Exception, hop: Hop, owner: Member) -> Exception:
        """``error`` with the node that it comes from, where that matters to the caller."""
        named: Exception
        match error:
            case AskTimeout():
                named = AskTimeout(
                    f"{error.actor} on node {owner.name}", error.message, hop.seconds, started=error.started,
                    doing=f"{error.doing}. It was one hop away from node {self._name}",
                )  # fmt: skip
            case MailboxFull():
                named = MailboxFull(f"{error.owner} on node {owner.name}", error.capacity)
            case _:
                return error
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        return named

    def _failed(self, hop: Hop, owner: Member, peer: _Peer, failure: LinkFailure) -> None:
        """There is no answer: send the command to the next owner, if it can then take effect only once."""
        if failure.full:
            self._finish(hop, Failed(MailboxFull(f"the link to node {owner.name}", WINDOW)))
            return
        if failure.delivery is Delivery.UNKNOWN:
            hop.may_be_handled = True
        command = hop.envelope.command
        is_late = self._clock.monotonic() >= hop.deadline
        if self._is_closed:
            self._finish(hop, Failed(self._abandoned(hop)))
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
            self._finish(hop, Failed(OutcomeUnknown(str(hop.stream), reason, command.command_id, hop.since)))
        else:
            peer.sent_again += 1
            self._put_away(owner, failure.reason)
            self._send(hop)

    def _abandoned(self, hop: Hop) -> Exception:
        if not hop.may_be_handled:
            return SystemNotRunning(self._system, "stopped")
        reason = f"node {self._name} stopped before the answer had come"
        return OutcomeUnknown(str(hop.stream), reason, hop.envelope.command.command_id, hop.since)

    def _finish(self, hop: Hop, result: Any) -> None:
        self._waiting.discard(hop)
        self._end(hop.stream, hop.envelope, result)

    def _end(self, stream: StreamId, envelope: CommandEnvelope, result: Any) -> None:
        if envelope.future is None:
            if isinstance(result, Failed):  # it was told
                self._dead.add(str(stream), envelope.command, describe(result.error))
        else:
            envelope.answer(result)

    # --- serving ---

    def _serve(self, body: bytes, answer: Answer) -> None:
        try:
            request = unpack_request(body)
            if isinstance(request, Leaving):
                self.announcement.note_leaving(request.member)
                answer(NO_REPLY)
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
        self._peers[request.sender].served += 1
        stream = StreamId(request.aggregate_type, request.aggregate_id)
        reply = ServedReply(stream, command, answer, self._name, request.told, lambda: self._is_closed)
        envelope = CommandEnvelope(command, reply)
        if request.since is not None:
            envelope.look_back(request.since)
        self._aggregates.deliver(stream, envelope, max(0.0, request.seconds))

    # --- leaving ---

    async def leave(self) -> None:
        """Be chosen no more: announce it, and tell the other nodes. Return when all have heard, or cannot be reached.

        Requests that are on their way are still served, until `close`.
        """
        await self.announcement.leave()
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
        self._is_closed = True
        self.announcement.close()

    async def close(self) -> None:
        """Withdraw the announcement and close the link; idempotent. Other nodes ask others for what they wait for."""
        self.refuse()
        try:
            await self.announcement.withdraw()
        finally:
            await self._link.close()
        for hop in tuple(self._homeless):
            self._finish(hop, Failed(self._abandoned(hop)))
        self._homeless.clear()

    # --- statistics ---

    def statistics(self) -> ClusterStatistics:
        """What this node has routed and served."""
        peers = self._peers
        return ClusterStatistics(
            node=self._name,
            local=self._local,
            sent=sum(peer.sent for peer in peers.values()),
            sent_again=sum(peer.sent_again for peer in peers.values()),
            served=sum(peer.served for peer in peers.values()),
            waiting=len(self._waiting),
            homeless=len(self._homeless),
            peers={
                name: PeerStatistics(
                    peer.sent,
                    peer.sent_again,
                    peer.served,
                    peer.seconds / peer.answers if peer.answers else None,
                )
                for name, peer in peers.items()
            },
        )
