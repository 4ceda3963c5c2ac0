"""Shards: the fixed number of parts that keys fall into, the same on every machine and in every version."""

from functools import lru_cache
from hashlib import blake2b

SHARDS = 1024
"""Never changed: nodes of two versions must agree on the shard of a key, and positions on disk depend on it."""


@lru_cache(maxsize=4096)  # a miss takes a microsecond; an entry takes 250 bytes
def shard_of_key(kind: str, key: str) -> int:
    """The shard of a key, from 0 to `SHARDS` - 1.

    Args:
        kind: What the key names; for an aggregate its type, for other keys empty.
        key: For an aggregate its id.
    """
    return int.from_bytes(blake2b(f"{kind}\0{key}".encode(), digest_size=4).digest()) % SHARDS
