"""How a `Member` is written in a store: as a msgpack map, by the names of its fields.

The nodes of one store may run different versions of this program. A later version may add fields, which an earlier one
ignores; a field that is missing has its default.
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import msgpack
from pydantic import TypeAdapter, ValidationError

from uno_actors.store.membership import Member

_NAMES = tuple(field.name for field in fields(Member))
_member: TypeAdapter[Member] = TypeAdapter(Member)


def packed(member: Member) -> bytes:
    """The announcement of ``member``."""
    announcement: bytes = msgpack.packb({name: getattr(member, name) for name in _NAMES})
    return announcement


def unpacked(announcement: bytes) -> Member:
    """The member that made ``announcement``.

    Raises:
        ValueError: It is none of any version.
    """
    try:
        content: Any = msgpack.unpackb(announcement)
        return _member.validate_python({name: content[name] for name in _NAMES if name in content})
    except (ValidationError, msgpack.UnpackException, TypeError, ValueError) as error:
        raise ValueError(f"{announcement[:100]!r} is not an announcement of a node: {error}") from error


def members_of(announcements: Iterable[bytes]) -> tuple[Member, ...]:
    """The members that made ``announcements``, sorted by id, less those that this version cannot read.

    A node whose announcement cannot be read is chosen for nothing, as if it were not there: that is only a matter of
    speed.
    """
    found = []
    for announcement in announcements:
        try:
            found.append(unpacked(announcement))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda member: member.id))
