"""Position tokens: places in a log as text, for clients that send them with a later request.

A token is the position of an event and a mark made of the event's id, such as ``1042.9f3a61c0d2e4``. The mark tells a
token of another store, or of a log that was restored from a backup since, from one of this store. Several tokens are
separated by commas, as values of a header are: a request may have recorded events in several places.
"""

import re
from hashlib import blake2b

MOST_TOKENS = 64
"""Tokens that are taken at once."""

_TOKEN = re.compile(r"([0-9]{1,19})\.([0-9a-f]{12})")


def position_token(position: int, event_id: str) -> str:
    """The token of the event at ``position``."""
    return f"{position}.{mark_of(event_id)}"


def mark_of(event_id: str) -> str:
    """The mark in the token of an event: 12 hexadecimal digits."""
    return blake2b(event_id.encode(), digest_size=6).hexdigest()


def positions_in(text: str) -> dict[int, str] | None:
    """The positions in one or more tokens, each with its mark; ``None`` if ``text`` is something else."""
    parts = text.split(",")
    if len(parts) > MOST_TOKENS:
        return None
    found = [_TOKEN.fullmatch(part.strip(" \t")) for part in parts]
    places = {int(match[1]): match[2] for match in found if match is not None}
    is_whole = all(found) and all(0 < position < 2**63 for position in places)
    return places if is_whole else None
