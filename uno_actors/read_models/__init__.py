"""Read models in the program's own SQL tables, each event counted exactly once (extra ``sql``).

A `SqlProjection` writes its tables and its progress in one transaction of the program's database, whatever store holds
the log. It stands on ``handlers`` and the store's port; no other package imports it. Read in this order:

- `uno_actors.read_models.tables`: the two tables in which progress is kept, and the statements for them.
- `uno_actors.read_models.projection`: the classes that programs derive from.
- `uno_actors.read_models.transactions` and `uno_actors.read_models.database_errors`: what a session may do, and what
  an error of the database says.
- `uno_actors.read_models.filling`: how their events are handled, one transaction after the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uno_actors.errors import MissingExtra

if TYPE_CHECKING:
    from uno_actors.read_models.projection import SqlProjection as SqlProjection
    from uno_actors.read_models.projection import SyncSqlProjection as SyncSqlProjection
    from uno_actors.read_models.tables import METADATA as METADATA
    from uno_actors.read_models.tables import create_schema as create_schema
    from uno_actors.read_models.tables import create_schema_sync as create_schema_sync
else:
    _PUBLIC = {
        "METADATA": "tables",
        "SqlProjection": "projection",
        "SyncSqlProjection": "projection",
        "create_schema": "tables",
        "create_schema_sync": "tables",
    }

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'uno_actors.read_models' has no attribute {name!r}", name=name)
        try:
            return getattr(import_module(f"uno_actors.read_models.{_PUBLIC[name]}"), name)
        except ModuleNotFoundError as missing:
            raise MissingExtra("uno_actors.read_models", "sql", missing) from missing

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PUBLIC})
