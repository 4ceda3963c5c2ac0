"""The tables of the SQL event store (format 1): what each column means, and what the store asks of them.

================= =============================================== =============================================
table             key                                             holds
================= =============================================== =============================================
uno_log           position, without a gap in a log                the header fields of a record, each a column,
                                                                  and ``payload``, as in every other store
uno_head          number of the log, from 1                       the last position, and the format of the tables
uno_checkpoints   handler                                         position
uno_dead_letters  handler, position                               the fields of `DeadLetter`
uno_snapshots     aggregate id, aggregate type                    version, schema version, state, taken at
uno_views         view, key                                       value
uno_facets        key of the facet                                a description, and the position up to which the
                                                                  facet is indexed; see `uno_actors.store.terms`
uno_terms         term, position                                  nothing else: the record has the term
uno_leases        name                                            how often it was taken; the holder, on SQLite as
                                                                  in `uno_stores.file_leases.Row`; when it ends by
                                                                  the server's clock, and whether the holder's
                                                                  session has a lock (PostgreSQL alone)
uno_nodes         id                                              what a node announces (msgpack, see
                                                                  `uno_actors.store.member_codec`); when that ends
                                                                  by the server's clock (PostgreSQL alone)
================= =============================================== =============================================

Headers are columns, so the server can filter the log and any SQL tool can inspect it. The payload stays msgpack, as in
every store: JSON has no bytes, only text as keys, no NUL, and no difference between a time and a text, and a record
that is copied from one store to another must stay the same.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import TEXT, TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

FORMAT = 1
FORMAT_OF_SEVERAL_LOGS = 2
"""Of a database with several logs, which earlier versions of this program would misread."""

METADATA = MetaData()
"""All tables. `DatabaseEventStore.create_schema` or a migration tool creates them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Microseconds(TypeDecorator[datetime]):
    """An aware time in SQLite, which has no type for it: microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        # In UTC, which refuses what could not be read again.
        return None if value is None else (value.astimezone(UTC) - _EPOCH) // _MICROSECOND

    @override
    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Instant(TypeDecorator[datetime]):
    """An aware time. PostgreSQL keeps the first and the last one of `datetime` as infinities, which come back naive."""

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _instant() -> TypeEngine[datetime]:
    return Instant().with_variant(Microseconds(), "sqlite")


def _text() -> Text:
    """Compared and sorted by bytes, in a database of any language."""
    return Text().with_variant(TEXT(collation="C"), "postgresql")


log = Table(
    "uno_log",
    METADATA,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    # In the order of `uno_actors.store.codec.Record`.
    Column("event_id", _text(), nullable=False),
    Column("event_type", _text(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("aggregate_type", _text()),
    Column("aggregate_id", _text()),
    Column("aggregate_version", BigInteger),
    Column("topic", _text()),
    Column("timestamp", _instant(), nullable=False),
    Column("correlation_id", _text()),
    Column("causation_id", _text()),
    Column("command_id", _text()),
    Column("reply", LargeBinary),
    Column("command_causation_id", _text()),
    Column("payload", LargeBinary, nullable=False),
)

stream_type = func.coalesce(log.c.aggregate_type, literal_column("''"))
"""The aggregate type in the name of a record's stream: a record may have an id and no type."""

Index("uno_log_stream", log.c.aggregate_id, stream_type, log.c.aggregate_version, unique=True)
Index(
    "uno_log_correlation",
    log.c.correlation_id,
    log.c.position,
    postgresql_where=log.c.correlation_id.is_not(None),
    sqlite_where=log.c.correlation_id.is_not(None),
)

head = Table(
    "uno_head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last_position", BigInteger, nullable=False),
    Column("format", Integer, nullable=False),
    postgresql_with={"fillfactor": 10},  # rows that change with each commit: room for its versions
)

checkpoints = Table(
    "uno_checkpoints",
    METADATA,
    Column("handler", _text(), primary_key=True),
    Column("position", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)

dead_letters = Table(
    "uno_dead_letters",
    METADATA,
    # In the order of `uno_actors.store.records.DeadLetter`.
    Column("handler", _text(), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_type", _text(), nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("error", _text(), nullable=False),
    Column("traceback", _text(), nullable=False),
    Column("first_failed", _instant(), nullable=False),
    Column("last_failed", _instant(), nullable=False),
)

snapshots = Table(
    "uno_snapshots",
    METADATA,
    Column("aggregate_id", _text(), primary_key=True),
    Column("aggregate_type", _text(), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("schema_version", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("taken_at", _instant(), nullable=False),
)

views = Table(
    "uno_views",
    METADATA,
    Column("view", _text(), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

facets = Table(
    "uno_facets",
    METADATA,
    Column("key", _text(), primary_key=True),
    Column("description", _text(), nullable=False),
    Column("position", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 10},
    info={"at_need": True},
)

terms = Table(
    "uno_terms",
    METADATA,
    Column("term", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
    info={"at_need": True},
)

leases = Table(
    "uno_leases",
    METADATA,
    Column("name", _text(), primary_key=True),
    Column("taken", BigInteger, nullable=False),
    Column("ends", _instant()),
    Column("by_session", Boolean),
    Column("holder", _text()),
)

nodes = Table(
    "uno_nodes",
    METADATA,
    Column("id", _text(), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("ends", _instant(), nullable=False),
    postgresql_with={"fillfactor": 50},
    info={"dialect": "postgresql"},
)

LATER = {"uno_leases": ("ends", "by_session", "holder")}
"""Columns that tables of an earlier version lack; all may be null, so that the earlier version still works."""
