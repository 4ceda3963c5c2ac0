"""The commands on the stores of many tenants: each names one, and `uno-actors run` serves all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.bank import EVENTS, Credited
from uno_actors import open_store
from uno_actors.cli.app import app
from uno_actors.tenants import url_of_tenant

FILE = """
[system]
name = "shop"
store = "lmdb:data/{tenant}"

[logging]
format = "json"

[aggregates]
types = ["configured:Shop"]

[tenants]
keep = "all"

[[handlers]]
handler = "configured:audit"
"""


COMMANDS = [("store", "events"), ("store", "info"), ("handlers", "list"), ("store", "stream", "alice")]

REFUSED = [(("--workers", "2"), "share one process"), (("--page", "127.0.0.1:0"), "dashboard")]


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """A directory with a file, and with the stores of two tenants."""
    (tmp_path / "shop.toml").write_text(FILE)
    for tenant, amount in (("acme", 17), ("globex", 42)):
        async with open_store(url_of_tenant(f"lmdb:{tmp_path}/data/{{tenant}}", tenant), EVENTS) as store:
            await store.append(Credited(amount=amount, aggregate_id="alice", aggregate_type="Account"))
    return tmp_path


def called(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, (result.output, result.exception)
    return f"{result.output} {result.exception or ''}"


@pytest.mark.parametrize(
    "command",
    [
        ("store", "events"),
        ("store", "info"),
        ("handlers", "list"),
        ("deadletters", "list"),
        ("store", "stream", "alice"),
    ],
)
def test_a_command_on_stores_of_tenants_names_one(place: Path, command: tuple[str, ...]) -> None:
    url = f"lmdb:{place}/data/{{tenant}}"
    for named in (("--store", url), ("--config", str(place / "shop.toml"))):
        refused = " ".join(called(*command, *named, code=2).split())
        assert "name one by --tenant" in refused.replace("│ ", "").replace(" │", "")
        called(*command, *named, "--tenant", "acme")
        assert "amount=17" in called("store", "events", *named, "--tenant", "acme")
        assert "amount=42" not in called("store", "events", *named, "--tenant", "acme")


@pytest.mark.parametrize("tenant", ["../globex", "globex/", "Globex", "globex?x=1", "", "nobody"])
def test_no_name_reaches_another_place(place: Path, tenant: str) -> None:
    result = called("store", "events", "--config", str(place / "shop.toml"), "--tenant", tenant, code=1)
    assert "amount=42" not in result
    assert sorted(path.name for path in (place / "data").iterdir()) == ["acme", "globex"]


def test_a_store_of_no_tenant_takes_none(place: Path) -> None:
    assert "this one is" in called(
        "store", "events", "--store", f"lmdb:{place}/data/acme", "--tenant", "acme", code=2
    )


def test_a_url_of_many_is_not_opened_as_one(place: Path) -> None:
    assert "that of many tenants" in called(
        "store", "copy", f"lmdb:{place}/data/{{tenant}}", "memory:", code=1
    )


@contextmanager
def running(place: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "uno_actors", "run", str(place / "shop.toml"), *words]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    found = ""
    while text not in found:
        line = process.stderr.readline()
        assert line, found
        found += line
    return found


def test_a_program_serves_all_tenants_and_shows_each(place: Path) -> None:
    with running(place) as process:
        log = read_until(process, "tenants are served")
        assert "shop/acme" in log
        assert "shop/globex" in log
        for tenant in ("acme", "globex"):
            shown = called("tree", str(place / "shop.toml"), "--tenant", tenant)
            assert f"shop/{tenant}, process {process.pid}" in shown
            assert "audit" in shown
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_program_serves_one_tenant(place: Path) -> None:
    with running(place, "--tenant", "acme") as process:
        read_until(process, "system started")
        deadline = time.monotonic() + 20
        while (
            "shop/acme"
            not in CliRunner().invoke(app, ["tree", str(place / "shop.toml"), "--tenant", "acme"]).output
        ):
            assert time.monotonic() < deadline
        called("tree", str(place / "shop.toml"), "--tenant", "globex", code=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_misspelt_tenant_is_refused_and_makes_no_store(place: Path) -> None:
    with running(place, "--tenant", "acne") as process:
        _, text = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "there is no tenant 'acne'" in text
        assert "--create" in text
    assert sorted(path.name for path in (place / "data").iterdir()) == ["acme", "globex"]


def test_a_new_tenant_is_made_when_that_is_asked_for(place: Path) -> None:
    with running(place, "--tenant", "initech", "--create") as process:
        read_until(process, "system started")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (place / "data" / "initech").is_dir()


def test_a_listed_tenant_needs_no_store_and_another_is_refused_even_with_one(place: Path) -> None:
    file = place / "shop.toml"
    file.write_text(FILE.replace('keep = "all"', 'names = ["acme", "initech"]'))
    with running(place, "--tenant", "initech") as process:
        read_until(process, "system started")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with running(place, "--tenant", "globex") as process:
        _, text = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "not among the names under [tenants]" in text


def test_create_is_for_one_tenant(place: Path) -> None:
    refused = " ".join(called("run", str(place / "shop.toml"), "--create", code=2).split())
    assert "name it by --tenant" in refused.replace("│ ", "").replace(" │", "")


@pytest.mark.parametrize(
    ("words", "error"), [(("--workers", "2"), "share one process"), (("--page", "127.0.0.1:0"), "dashboard")]
)
def test_what_cannot_be_had_for_many_tenants_is_refused(
    place: Path, words: tuple[str, ...], error: str
) -> None:
    with running(place, *words) as process:
        _, text = process.communicate(timeout=30)
        assert process.returncode == 1
        assert error in text
