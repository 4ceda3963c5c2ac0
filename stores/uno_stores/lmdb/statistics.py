"""What an LMDB store reports about itself while it runs."""

from dataclasses import dataclass

from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.watcher import Watcher


@dataclass(frozen=True, slots=True)
class LmdbStatistics:
    """The current state of an `LmdbEventStore`.

    Attributes:
        transactions: Write transactions in the life of the file, those of other processes included.
        map_size: Bytes that the file may grow to before the map is made larger.
        max_size: Bytes that the file may grow to at all; ``None``: as large as the disk.
        readers: Read transactions that LMDB's lock file names, in all processes. One of a process that died counts
            until the store frees its place.
        flags: LMDB's names of the flags that are set, such as ``sync``.
        watching: Whether the store looks for commits of other processes, as it does while it has listeners.
    """

    transactions: int
    map_size: int
    max_size: int | None
    readers: int
    flags: frozenset[str]
    watching: bool


def statistics(environment: Environment, watcher: Watcher) -> LmdbStatistics:
    """The current state of a store, given its parts.

    Raises:
        StoreUnavailable: It was closed.
    """
    environment.check_open()
    with environment.gate:
        info, flags, readers = environment.env.info(), environment.env.flags(), environment.env.readers()
    return LmdbStatistics(
        info["last_txnid"],
        info["map_size"],
        environment.options.max_size,
        len(readers.splitlines()) - 1,  # a heading, then one line for each; or one line that there are none
        frozenset(name for name, is_set in flags.items() if is_set),
        watcher.loop is not None,
    )
