"""Stores in a project's own surroundings: parts that are not installed, and packages with names like ours."""

import subprocess
import sys
from pathlib import Path

import pytest

REMEDY = "the SQL event store needs `pip install 'uno-actors[sql]'`"


def run(directory: Path, program: str) -> subprocess.CompletedProcess[str]:
    (directory / "program.py").write_text(program, "utf-8")
    return subprocess.run(
        [sys.executable, "program.py"], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("missing", ["sqlalchemy", "greenlet"])
@pytest.mark.parametrize(
    "use",
    [
        "from uno_stores import DatabaseEventStore",
        "from uno_stores import create_database_event_store",
        "import uno_stores; uno_stores.DatabaseEventStore",
        "from uno_stores.sql import DatabaseEventStore",
        "from uno_actors import open_store; open_store('sqlite+aiosqlite:///x.db')",
    ],
)
def test_store_whose_extra_is_not_installed_names_it(tmp_path: Path, missing: str, use: str) -> None:
    ended = run(tmp_path, f"import sys\nsys.modules[{missing!r}] = None\n{use}\n")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(REMEDY)


@pytest.mark.parametrize(
    ("missing", "url"),
    [("aiosqlite", "sqlite+aiosqlite:///x.db"), ("asyncpg", "postgresql+asyncpg://a:secret@127.0.0.1/db")],
)
def test_database_whose_driver_is_not_installed_names_the_extra(
    tmp_path: Path, missing: str, url: str
) -> None:
    program = f"import sys\nsys.modules[{missing!r}] = None\nfrom uno_actors import open_store\nopen_store({url!r})\n"
    last = run(tmp_path, program).stderr.splitlines()[-1]
    assert last.startswith("uno_actors.errors.StoreUnavailable: ")
    assert last.endswith(REMEDY)
    assert "secret" not in last
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("use", ["LmdbEventStore", "InMemoryEventStore"])
def test_other_stores_need_no_extra(tmp_path: Path, use: str) -> None:
    ended = run(
        tmp_path,
        f"import sys\nsys.modules['sqlalchemy'] = None\nfrom uno_stores import {use}\nprint({use})\n",
    )
    assert ended.stdout.startswith("<class 'uno_stores.")


@pytest.mark.parametrize("url", ["memory:", "lmdb:store"])
def test_folders_of_the_project_with_names_of_this_repository_break_no_store(
    tmp_path: Path, url: str
) -> None:
    for package in ("stores", "tests", "examples"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "raise ImportError('a package of the user')\n", "utf-8"
        )
    ended = run(
        tmp_path,
        f"""
import asyncio
from uno_actors import open_store

async def main() -> None:
    async with open_store({url!r}) as store:
        print(await store.last_position())

asyncio.run(main())
""",
    )
    assert (ended.stdout, ended.stderr) == ("0\n", "")
