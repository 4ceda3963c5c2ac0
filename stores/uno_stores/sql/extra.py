"""The packages of the extra ``sql``, which may be missing: SQLAlchemy, greenlet, and the driver of each database."""


def needs_extra(missing: ModuleNotFoundError) -> str:
    """The reason and the remedy if one of them is not installed."""
    return f"{missing}: the SQL event store needs `pip install 'uno-actors[sql]'`"
