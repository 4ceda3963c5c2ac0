"""Stores that an earlier version wrote: today's program finds all that is in them, and carries on with them.

What is in ``fixtures/written_before`` is never written anew. If one of these tests fails, the program has to change:
names that are on disk do not follow a move of the code.
"""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from uno_actors import open_store

WRITTEN = Path(__file__).parent / "fixtures" / "written_before"
COMMAND = Path(sys.executable).with_name("uno-actors")
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text())

KINDS = sorted(EXPECTED)
FOUND = sorted(EXPECTED["lmdb"]["found"])
MAY_GAIN_FIELDS = ("events", "dead letters", "handlers", "snapshots")
"""Parts whose classes belong to the framework: a later version may add fields, and not remove any."""

pytestmark = pytest.mark.filterwarnings(
    "ignore::uno_actors.HandlerNameWarning"
)  # two keep their default names


@pytest.fixture
def reading(own_handlers: object, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that reads the stores, and with it their domain, whose handlers no other test is to have."""
    monkeypatch.syspath_prepend(str(WRITTEN))
    return importlib.import_module("written_before_reading")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def path(reading: ModuleType, kind: str, tmp_path: Path) -> Path:
    """A copy of the store."""
    found: Path = reading.copied(kind, WRITTEN, tmp_path)
    return found


def url_of(reading: ModuleType, kind: str, path: Path) -> str:
    url: str = reading.KINDS[kind].format(path)
    return url


def as_json(found: Any) -> Any:
    return json.loads(json.dumps(found))


def as_far_as(found: Any, wanted: Any) -> Any:
    """``found`` without the fields that ``wanted`` does not have."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return {name: as_far_as(found[name], wanted[name]) for name in found if name in wanted}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [as_far_as(*pair) for pair in zip(found, wanted, strict=True)]
    return found


def with_earlier_ids(found: Any) -> Any:
    """``found`` with the ids that commands of processes had: without the process, and not recorded with the command.

    The fingerprint of a command depends on its id, so that of such a command is left out.
    """
    text = re.sub(r'\\+"command_id\\+":\\+"[^"\\]*\.\d+\.[0-9a-f]{16}\\+",?', "", json.dumps(found))
    text = re.sub(r"(\.\d+)\.[0-9a-f]{16}\b", r"\1", text)
    return json.loads(re.sub(r'(\.\d+", null, \["contents )[0-9a-f]{16}', r"\1of this id", text))


# --- what is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", FOUND)
async def test_everything_that_was_written_is_found(
    reading: ModuleType, kind: str, path: Path, part: str
) -> None:
    found = as_json(await reading.described(url_of(reading, kind, path)))[part]
    wanted = EXPECTED[kind]["found"][part]
    assert (as_far_as(found, wanted) if part in MAY_GAIN_FIELDS else found) == wanted


async def test_a_store_that_is_only_read_stays_as_it_was(reading: ModuleType, kind: str, path: Path) -> None:
    await reading.described(url_of(reading, kind, path))
    assert as_json(reading.raw(kind, path)) == EXPECTED[kind]["raw"]


def test_operator_commands_find_the_same(reading: ModuleType, kind: str, path: Path) -> None:
    for group, part in (("handlers", "handlers"), ("deadletters", "dead letters")):
        shown = command(group, "list", "--json", "-s", url_of(reading, kind, path))
        names = [json.loads(line) for line in shown.splitlines()]
        key = "name" if group == "handlers" else "handler"
        assert [each[key] for each in names] == [each[key] for each in EXPECTED[kind]["found"][part]]
    if kind == "lmdb":
        command("store", "verify", "-s", url_of(reading, kind, path))


# --- what a system does that carries on --------------------------------------------------------------------


async def test_a_system_resumes_where_the_earlier_one_ended(
    reading: ModuleType, kind: str, path: Path
) -> None:
    """Repeated commands, handlers with their checkpoints, views, a process, requests of operators, bridges.

    Nothing is handled again, nothing is left out, and nothing is kept under another name than before.
    """
    found, wanted = as_json(await reading.continued(kind, path)), EXPECTED[kind]["continued"]
    found = with_earlier_ids(found)
    assert found.keys() == wanted.keys()
    for part, expected in wanted.items():
        assert (part, as_far_as(found[part], expected) if part == "handlers" else found[part]) == (
            part,
            expected,
        )
    assert as_json(reading.names(kind, path)) == EXPECTED[kind]["names then"]


def test_what_is_left_to_handle_was_not_handled_before() -> None:
    """The description of the stores itself: each handler is in the middle of the log."""
    for expected in EXPECTED.values():
        checkpoints, handled = expected["found"]["checkpoints"], expected["continued"]["handled"]
        for name in ("mail", "written_before_domain.Watch", "written_before_domain.keep_logbook"):
            again = [position for position in handled[name] if position <= checkpoints[name]]
            assert again == ([8] if name == "mail" else [])  # the dead letter that is to be retried
            assert 0 < checkpoints[name] < max(handled[name])


# --- what is written today ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores_of_today(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores in which today's program has done the same, each written by its own process."""
    paths = {kind: tmp_path_factory.mktemp("today") / kind for kind in KINDS}
    writers = [
        subprocess.Popen([sys.executable, "-W", "ignore", WRITTEN / "write.py", "--store", kind, path])
        for kind, path in paths.items()
    ]
    assert [writer.wait() for writer in writers] == [0] * len(KINDS)
    return paths


@pytest.fixture
def written_now(reading: ModuleType, kind: str, stores_of_today: dict[str, Path]) -> dict[str, list[Any]]:
    """The raw records of the store of this kind, without their random parts."""
    raw = with_earlier_ids(as_json(reading.raw(kind, stores_of_today[kind])))
    found: dict[str, list[Any]] = as_json(reading.without_chance(raw))
    return found


def test_the_same_program_still_writes_the_same(
    reading: ModuleType, kind: str, written_now: dict[str, list[Any]]
) -> None:
    wanted = as_json(reading.without_chance(with_earlier_ids(EXPECTED[kind]["raw"])))
    assert written_now.keys() == wanted.keys()
    for database, rows in wanted.items():
        assert (database, written_now[database]) == (database, rows)


def test_the_names_that_the_framework_writes_are_unchanged(
    kind: str, written_now: dict[str, list[Any]]
) -> None:
    log = written_now["log" if kind == "lmdb" else "uno_log"]
    assert {row[2] for row in log if row[2].startswith("uno")} == {"uno_actors.Reacted"}
    assert {row[4] for row in log if (row[4] or "").startswith("uno")} == {"uno.bridge"}
    keys = [row[:2] for row in written_now["views" if kind == "lmdb" else "uno_views"]]
    if kind == "lmdb":
        keys = [key.split("\\x00", 1) for key, _ in keys]
        assert written_now["meta"] == [["format", "1"], ["program", "uno_actors"]]
    else:
        assert {name for what, name, *_ in written_now[""] if what == "table"} == {
            "uno_checkpoints", "uno_dead_letters", "uno_head", "uno_leases", "uno_log", "uno_snapshots", "uno_views",
        }  # fmt: skip
    assert {view for view, _ in keys if "@" not in view} == {"uno_actors.handlers", "uno_actors.views"}
    words = {key.strip("\\x0").split("\\x00\\x02")[1] for view, key in keys if view == "uno_actors.handlers"}
    assert {word.partition("\\x00")[0] for word in words} == {"paused", "reset", "retry", "told"}


# --- an export ---------------------------------------------------------------------------------------------


def test_an_export_today_equals_the_earlier_export(reading: ModuleType, tmp_path: Path) -> None:
    path = reading.copied("lmdb", WRITTEN, tmp_path)
    command("store", "export", "-s", f"lmdb:{path}", tmp_path / "events.jsonl")
    assert (tmp_path / "events.jsonl").read_text() == (WRITTEN / "events.jsonl").read_text()


async def test_the_earlier_export_can_be_imported(reading: ModuleType, tmp_path: Path) -> None:
    command("store", "import", "-s", f"lmdb:{tmp_path / 'store'}", WRITTEN / "events.jsonl")
    async with open_store(f"lmdb:{tmp_path / 'store'}", create=False) as store:
        events = [[position, reading.plain(event)] async for position, event in store.read_all()]
    wanted = EXPECTED["lmdb"]["found"]["events"]
    assert as_far_as(as_json(events), wanted) == wanted


def command(*arguments: str | Path) -> str:
    """What ``uno-actors`` prints, as a user starts it."""
    return subprocess.run([COMMAND, *arguments], check=True, capture_output=True, text=True).stdout
