"""The logs of a store: which log holds a stream, and what a position tells of its log.

A store has one log, or several side by side (its ``logs``). A stream belongs to one of them, by its shard. Positions
order the events of one log. They do not order events of different logs.

A position tells its log: in a store with one log positions run from 1, in one with several the positions of log ``k``
(from 0) run from ``(k + 1) * 2**40 + 1``. So no position of a store with several logs is mistaken for one of a store
with one, and all are exact in JSON, which has 53 bits.
"""

from uno_actors.shards import SHARDS, shard_of_key
from uno_actors.store.codec import Record, StreamId

MAX_LOGS = SHARDS
"""Each log has at least one shard of the streams."""
_NUMBER_BITS = 40


def starts_of_logs(logs: int) -> list[int]:
    """The position before the first event of each log, in a store with so many."""
    return [start_of(log, logs) for log in range(logs)]


def start_of(log: int, logs: int) -> int:
    """The position before the first event of one log, in a store with so many."""
    return 0 if logs == 1 else (log + 1) << _NUMBER_BITS


def log_of_position(position: int) -> int:
    """The log of an event at ``position``, or of the end or start of a log."""
    return max(0, (position >> _NUMBER_BITS) - 1)


def is_position_in(position: int, logs: int) -> bool:
    """Whether ``position`` may be one of a store with so many logs."""
    return logs == 1 or 1 <= position >> _NUMBER_BITS <= logs


def start_of_log(position: int) -> int:
    """The position before the first event of the log of ``position``."""
    return position >> _NUMBER_BITS << _NUMBER_BITS


def last_of_log(position: int) -> int:
    """The largest position that the log of ``position`` can have."""
    return position | ((1 << _NUMBER_BITS) - 1)


def log_of_stream(stream: StreamId, logs: int) -> int:
    """The log that holds ``stream``, in a store with so many."""
    return 0 if logs == 1 else shard_of_key(*stream) % logs


def log_of_record(record: Record, logs: int) -> int:
    """The log that holds ``record``, in a store with so many."""
    return 0 if logs == 1 else shard_of_record(record) % logs


def shard_of_record(record: Record) -> int:
    """The shard of ``record``: that of its stream; without one, that of its correlation."""
    if record.aggregate_id is not None:
        return shard_of_key(record.aggregate_type or "", record.aggregate_id)
    return shard_of_key("", record.correlation_id or record.event_id)
