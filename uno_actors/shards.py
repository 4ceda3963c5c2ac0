"""Shards: the fixed number of parts that keys fall into, the same on every machine and in every version."""

from functools import lru_cache
from hashlib import blake2b

SHARDS = 1024
"""Never changed: nodes of two versions must agree on the shard of a key, and positions on disk depend on it."""


BESIDE = "uno_actors.Schedule"
"""A kind of keys that may say what they are beside: see `key_beside`. On disk."""
_AFTER_SHARD = "#"


def key_beside(kind: str, key: str, name: str) -> str:
    """A key of the kind `BESIDE` in the shard of another key.

    Args:
        kind: Of the other key.
        key: The other key.
        name: What the new key names; it contains no ``#``.
    """
    return f"{shard_of_key(kind, key)}{_AFTER_SHARD}{name}"


def name_in(key: str) -> str:
    """The name in a key of the kind `BESIDE`, whether it says what it is beside or not."""
    return key.rpartition(_AFTER_SHARD)[2]


@lru_cache(maxsize=4096)  # a miss takes a microsecond; an entry takes 250 bytes
def shard_of_key(kind: str, key: str) -> int:
    """The shard of a key, from 0 to `SHARDS` - 1.

    Args:
        kind: What the key names; for an aggregate its type, for other keys empty.
        key: For an aggregate its id.
    """
    if kind == BESIDE:
        shard, mark, _ = key.partition(_AFTER_SHARD)
        if mark and shard.isascii() and shard.isdigit():
            return int(shard) % SHARDS
    return int.from_bytes(blake2b(f"{kind}\0{key}".encode(), digest_size=4).digest()) % SHARDS
