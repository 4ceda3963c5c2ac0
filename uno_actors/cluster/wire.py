"""What nodes send each other: commands and replies as msgpack, by the names that are recorded too.

A command travels as the name of its aggregate's type, its own name and its fields; there is no pickle and no class
path. Values arrive equal, and of equal types; what would not is refused where it is sent. See
`uno_actors.domain.command_payloads` for commands, `uno_actors.domain.values` for replies, and
`uno_actors.cluster.remote_errors` for errors.

Nodes of different versions talk to each other during a deployment, so fields are only added, at the end.
"""

import enum
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from uno_actors.aggregates.recording import reply_classes
from uno_actors.cluster.remote_errors import pack_error, unpack_error
from uno_actors.cluster.statistics import ClusterStatistics, PeerStatistics
from uno_actors.domain.commands import Command
from uno_actors.domain.values import TagReader, pack_value, tag_reader
from uno_actors.errors import ReplyNotSent, describe
from uno_actors.store.codec import StreamId


class Kind(enum.IntEnum):
    """What a message is; its first item."""

    COMMAND = 1
    LEAVING = 2
    REPLY = 3
    ERROR = 4
    NOT_SERVED = 5
    STATE = 6
    HANDLED = 7
    LENT = 8
    RECALL = 9


class Request(NamedTuple):
    """A command on its way to another node.

    Attributes:
        kind: `Kind.COMMAND`.
        aggregate_type: Type of the aggregate.
        aggregate_id: Its id.
        command: Name of the command's class.
        payload: From `uno_actors.domain.command_payloads.pack_command`.
        command_id: See `Command`.
        correlation_id: See `Command`.
        causation_id: See `Command`.
        left_out: Names of the fields that were not given.
        seconds: Time that its sender still waits.
        since: Position of the log after which it may have been recorded already; ``None`` if it cannot have been.
        told: Whether its sender wants no reply, only to know that it was handled.
        hops: Nodes that have passed it on, its sender included.
        sender: Name of the node that sends it.
        trace: Context of a trace.
        wants_place: Whether its sender understands an answer that says where the command was recorded.
        borrower: Id of its sender if it takes the aggregate on loan; see `uno_actors.cluster.loans`.
    """

    kind: int
    aggregate_type: str
    aggregate_id: str
    command: str
    payload: bytes
    command_id: str
    correlation_id: str | None
    causation_id: str | None
    left_out: list[str]
    seconds: float
    since: int | None
    told: bool
    hops: int
    sender: str
    trace: dict[str, str]
    wants_place: bool = False
    borrower: str | None = None


class Leaving(NamedTuple):
    """A node says that it leaves and must not be chosen any more.

    Attributes:
        kind: `Kind.LEAVING`.
        member: Id of the node.
    """

    kind: int
    member: str


class StateRequest(NamedTuple):
    """A question for what a node has routed and served, as ``uno-actors cluster`` asks it.

    Attributes:
        kind: `Kind.STATE`.
    """

    kind: int


class HandledRequest(NamedTuple):
    """A question that is answered when a handler has come to a position, or cannot come there now.

    Attributes:
        kind: `Kind.HANDLED`.
        handler: Name of the handler, or of one of its partitions.
        position: Position in the log.
        seconds: Time that its sender waits.
    """

    kind: int
    handler: str
    position: int
    seconds: float


class Recall(NamedTuple):
    """The owner of an aggregate wants it back; it is answered when the node has let go of the aggregate.

    Attributes:
        kind: `Kind.RECALL`.
        aggregate_type: Type of the aggregate.
        aggregate_id: Its id.
    """

    kind: int
    aggregate_type: str
    aggregate_id: str


_pack = msgpack.Packer().pack

STATE_REQUEST: bytes = _pack((int(Kind.STATE),))


def command_request(
    stream: StreamId,
    command: Command[Any],
    payload: bytes,
    *,
    seconds: float,
    since: int | None,
    told: bool,
    sender: str,
    trace: dict[str, str] | None = None,
    borrower: str | None = None,
) -> bytes:
    """The bytes of a `Request`; see there for the arguments."""
    kind = type(command)
    values = command.__dict__
    given = command.__pydantic_fields_set__
    left_out = () if len(given) >= len(values) else [name for name in values if name not in given]
    return _pack(  # type: ignore[no-any-return]
        (
            1,
            stream[0],
            stream[1],
            kind.__name__,
            payload,
            values["command_id"],
            values["correlation_id"],
            values["causation_id"],
            left_out,
            seconds,
            since,
            told,
            1,
            sender,
            trace or {},
            True,
            borrower,
        )
    )


def leaving_request(member: str) -> bytes:
    """The bytes of a `Leaving`."""
    return _pack(Leaving(Kind.LEAVING, member))  # type: ignore[no-any-return]


def handled_request(handler: str, position: int, seconds: float) -> bytes:
    """The bytes of a `HandledRequest`."""
    return _pack(HandledRequest(Kind.HANDLED, handler, position, seconds))  # type: ignore[no-any-return]


def recall_request(stream: StreamId) -> bytes:
    """The bytes of a `Recall`."""
    return _pack(Recall(Kind.RECALL, *stream))  # type: ignore[no-any-return]


def unpack_request(body: bytes) -> Request | Leaving | StateRequest | HandledRequest | Recall:
    """What another node has sent.

    Raises:
        Exception: It is damaged, or of a version that this one does not know.
    """
    parts = msgpack.unpackb(body)
    if parts[0] == Kind.COMMAND:
        return Request(*parts[: len(Request._fields)])  # one of an older version has fewer fields
    if parts[0] == Kind.LEAVING:
        return Leaving._make(parts[: len(Leaving._fields)])
    if parts[0] == Kind.STATE:
        return StateRequest._make(parts[: len(StateRequest._fields)])
    if parts[0] == Kind.HANDLED:
        return HandledRequest._make(parts[: len(HandledRequest._fields)])
    if parts[0] == Kind.RECALL:
        return Recall._make(parts[: len(Recall._fields)])
    raise ValueError(f"no request is of kind {parts[0]!r}")


# --- answers ---

_REPLY: bytes = b"\x92" + _pack(int(Kind.REPLY))
"""Begins a msgpack array of two; the packed reply is the second item."""
_PLACED_REPLY: bytes = b"\x93" + _pack(int(Kind.REPLY))
"""Begins one of three; the third item says where the command was recorded."""
_ERROR: bytes = b"\x92" + _pack(int(Kind.ERROR))
NO_REPLY: bytes = _REPLY + _pack(None)
"""The answer to what was told."""

_PLAIN = frozenset({type(None), bool, float, str})


def reply_answer(
    reply: object, command: Command[Any], node: str, place: tuple[int, str] | None = None
) -> bytes:
    """The answer with the reply to a command, or with `ReplyNotSent`.

    Args:
        reply: Any value.
        command: The command.
        node: Name of this node.
        place: Position and id of the last event that it has recorded, if there is one and the sender wants to know.
    """
    try:
        if type(reply) in _PLAIN:
            packed: bytes = _pack(reply)
        else:
            packed = pack_value(reply, reply_classes(type(command)), may_share=True)
        return _REPLY + packed if place is None else _PLACED_REPLY + packed + _pack(place)
    except Exception as error:  # noqa: BLE001 - the command was handled; its sender must learn that
        kind = type(command).__name__
        reason = describe(error)
        return error_answer(
            ReplyNotSent(kind, command.command_id, type(reply).__qualname__, node, reason), node
        )


def error_answer(error: BaseException, node: str) -> bytes:
    """The answer with an error of the node of this name."""
    return _ERROR + pack_error(error, node)


def not_served_answer(reason: str) -> bytes:
    """The answer that a node does not serve a command: it was not handled, and another node may serve it."""
    return _pack((int(Kind.NOT_SERVED), reason))  # type: ignore[no-any-return]


def lent_answer(*, again: bool) -> bytes:
    """The answer to a node that has the aggregate on loan: it was not handled, and that node handles it itself.

    Args:
        again: Whether the aggregate was lent to it before; this node has handled none of its commands since then.
    """
    return _pack((int(Kind.LENT), again))  # type: ignore[no-any-return]


def state_answer(statistics: ClusterStatistics) -> bytes:
    """The answer to a `StateRequest`."""
    return _pack((int(Kind.STATE), asdict(statistics)))  # type: ignore[no-any-return]


def unpack_state(body: bytes) -> ClusterStatistics | None:
    """What a node has answered to a `StateRequest`; ``None`` if it is of a version that does not know the question.

    Raises:
        Exception: It is damaged.
    """
    kind, found = msgpack.unpackb(body)
    if kind != Kind.STATE:
        return None
    known = {each.name for each in fields(ClusterStatistics)}
    peer = {each.name for each in fields(PeerStatistics)}
    peers = {
        name: PeerStatistics(**{key: value for key, value in counters.items() if key in peer})
        for name, counters in found["peers"].items()
    }
    return ClusterStatistics(
        **{key: value for key, value in found.items() if key in known} | {"peers": peers}
    )


class NotServedHere(NamedTuple):
    """The other node does not serve the command, for this reason."""

    reason: str


def handled_answer(outcome: str, letter: int | None) -> bytes:
    """The answer to a `HandledRequest`; see `uno_actors.system.waiting`."""
    return _pack((int(Kind.HANDLED), outcome, letter))  # type: ignore[no-any-return]


def unpack_handled(body: bytes) -> tuple[str, Any] | None:
    """What a node has answered to a `HandledRequest`; ``None`` if it is of a version that does not know the question.

    Raises:
        Exception: It is damaged.
    """
    kind, *found = msgpack.unpackb(body)
    return (found[0], found[1]) if kind == Kind.HANDLED else None


class LentToUs(NamedTuple):
    """The other node has lent the aggregate to this one, and has not handled the command; see `lent_answer`."""

    again: bool


class RecordedThere(NamedTuple):
    """The reply of the other node, and where the command was recorded."""

    reply: Any
    place: tuple[int, str]


def unpack_answer(body: bytes, command: Command[Any], node: str) -> Any:
    """What the node of this name has answered: the reply, or a value of a class of this module.

    Raises:
        Exception: It is damaged, or the class of a value has other fields here.
    """
    if body.startswith(_REPLY):
        return msgpack.unpackb(body, ext_hook=_tags_of(type(command)), strict_map_key=False)[1]
    if body.startswith(_PLACED_REPLY):
        _, reply, place = msgpack.unpackb(body, ext_hook=_tags_of(type(command)), strict_map_key=False)
        return RecordedThere(reply, (place[0], place[1]))
    if body.startswith(_ERROR):
        return RaisedThere(unpack_error(body[len(_ERROR) :], node))
    kind, found = msgpack.unpackb(body)
    if kind == Kind.LENT:
        return LentToUs(found)
    if kind != Kind.NOT_SERVED:
        raise ValueError(f"no answer is of kind {kind!r}")
    return NotServedHere(found)


class RaisedThere(NamedTuple):
    """The error with which the other node has answered."""

    error: Exception


@lru_cache(maxsize=1024)
def _tags_of(command: type[Command[Any]]) -> TagReader:
    return tag_reader(reply_classes(command))
