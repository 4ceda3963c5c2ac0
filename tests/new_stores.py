"""URLs of new stores for the tests, by the engine that keeps them."""

from pathlib import Path

from tests.postgres import postgres


async def new_store_url(engine: str, directory: Path) -> str:
    """The URL of an empty store: ``lmdb`` or ``sqlite`` in ``directory``, ``postgres`` on the server of the tests."""
    match engine:
        case "lmdb":
            return f"lmdb:{directory}/store"
        case "sqlite":
            return f"sqlite+aiosqlite:///{directory}/store.db"
        case "postgres":
            return await postgres().new_url()
    raise ValueError(f"no engine is named {engine!r}")
