"""The payload of an event: how it is recorded, and the rule that it reads back unchanged.

A payload is a msgpack map of the event's fields by name. `pack_payload` holds the rule: an event is recorded only if
the bytes, read by a fresh process, give an event of equal values and equal types. Otherwise it is refused with the
field that would change. `as_recorded` returns the event that such a process reads, and `AggregateRoot.register_event`
applies that event, so the state of an aggregate never rests on anything else.

Most events need no proof (`exactness`). Every other event is written, read and compared (`proof`). A field that plain
msgpack does not carry (a ``Decimal`` in ``Decimal | str``, an enum whose values are tuples, a mapping keyed by models)
is written with the tags of `uno_actors.domain.values`.

Two kinds of values are brought into a fixed form before they are applied, rather than refused: a time keeps its
offset from UTC but not the name of its zone, because the rules of a zone change; and an instance of a subclass of a
scalar type, such as a ``datetime`` of a library, becomes the scalar.
"""

from collections.abc import Callable
from typing import TypeVar

import msgpack

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.exactness import is_exact
from uno_actors.domain.payload_writer import native_fields, plain
from uno_actors.domain.proof import prove, read_back

E = TypeVar("E", bound=DomainEvent)

_set = object.__setattr__  # a frozen model allows this one


def pack_payload(event: DomainEvent) -> bytes:
    """The payload of ``event`` as msgpack, which reads back as an equal event of equal types.

    Raises:
        EventNotSerializable: A value in it would read back as a different value, or cannot be written.
    """
    try:
        proven = event._proven_payload
    except AttributeError:
        if not is_exact(event):
            return prove(event)[0]
    else:
        if proven:
            return proven
    fields = native_fields(event)
    try:
        try:
            return _pack_native(fields)
        except TypeError:  # it has a value that msgpack does not know, such as a Decimal
            packed: bytes = msgpack.packb(fields, datetime=True, default=plain)
            return packed
    except Exception:  # noqa: BLE001 - such as an integer beyond 64 bits; the proof names any other reason
        return prove(event)[0]


_pack_native: Callable[[object], bytes] = msgpack.Packer(datetime=True).pack
"""One packer for all events: making a packer takes longer than packing an event. It runs only msgpack's own code."""


def as_recorded(event: E) -> E:
    """``event`` as a fresh process reads it: itself if nothing in it can change, otherwise a copy.

    Raises:
        EventNotSerializable: As for `pack_payload`.
    """
    return event if is_exact(event) else own_copy(event)


_EXACT = b""
"""Stands for the payload of an event that needed no proof."""


def mark_exact(event: DomainEvent) -> bool:
    """Whether ``event`` is exact, as in `is_exact`; if so, `pack_payload` does not check again."""
    exactly = event.__class__._exactly
    if not (is_exact(event) if exactly is None else exactly(event.__dict__)):
        return False
    _set(event, "_proven_payload", _EXACT)
    return True


def own_copy(event: E) -> E:
    """A copy of ``event`` as a fresh process reads it; the two share nothing that can change.

    Raises:
        EventNotSerializable: As for `pack_payload`.
    """
    payload = getattr(event, "_proven_payload", None)
    if payload:
        copy = read_back(event, payload)
    else:
        payload, copy = prove(event)
    _set(copy, "__pydantic_fields_set__", event.__pydantic_fields_set__)
    _set(copy, "_proven_payload", payload)
    return copy


def unshared(event: E) -> E:
    """``event`` for one of several receivers: a deep copy, unless nothing in it can change or it cannot be copied."""
    if is_exact(event):
        return event
    try:
        return event.model_copy(deep=True)
    except Exception:  # noqa: BLE001 - a value may do anything when it is copied; it will not be recorded
        return event
