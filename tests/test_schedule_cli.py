"""``uno-actors schedule``: what is scheduled is listed, shown, cancelled and sent now."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.scheduling import CancelledNow, CancelNow, Deadline
from uno_actors import ActorSystem, open_store

COMMAND = str(Path(sys.executable).with_name("uno-actors"))


def run(path: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [COMMAND, "schedule", *arguments, "-s", f"lmdb:{path}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def listed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(path, "list", "--json").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two scheduled commands; nothing runs."""

    async def serve() -> None:
        async with ActorSystem(f"lmdb:{tmp_path}/store", aggregates=[Deadline], handlers=[]) as system:
            year = datetime(2100, 1, 1, 12, tzinfo=UTC)
            await system.schedule(CancelNow(note="first"), to=(Deadline, "a"), at=year, key="one")
            await system.schedule(
                CancelNow(note="later"), to=(Deadline, "b"), every="0 9 1 1 *", key="yearly"
            )
            await system.settled()

    asyncio.run(serve())
    return tmp_path / "store"


def test_scheduled_commands_are_listed_by_due_time(path: Path) -> None:
    yearly, one = listed(path)
    assert one["due"] == "2100-01-01T12:00:00+00:00"
    assert (one["key"], one["command"], one["to_type"], one["to_id"], one["fields"]) == (
        "one",
        "CancelNow",
        "Deadline",
        "a",
        {"note": "first"},
    )
    assert (yearly["every"], yearly["tz"], yearly["catch_up"], yearly["owner_type"]) == (
        "0 9 1 1 *",
        "UTC",
        "last",
        None,
    )
    assert "2100-01-01 12:00:00" in run(path, "list")
    assert len(run(path, "list", "--limit", "1", "--json").splitlines()) == 1


def test_one_is_shown_with_its_fields(path: Path) -> None:
    _, one = listed(path)
    assert json.loads(run(path, "show", one["id"], "--json")) == one
    assert 'fields: {"note":"first"}' in run(path, "show", one["id"]).replace('": "', '":"')
    assert "nothing is scheduled as unknown" in run(path, "show", "unknown", code=1)


def test_what_is_cancelled_is_not_sent_and_what_is_to_run_now_is(path: Path) -> None:
    yearly, one = listed(path)
    assert run(path, "cancel", one["id"]) == "CancelNow to Deadline<a> is cancelled\n"
    assert run(path, "run-now", yearly["id"]) == "CancelNow to Deadline<b> is sent now\n"
    assert "it has just been due or cancelled" in run(path, "cancel", one["id"], code=1)

    async def serve() -> list[str]:
        async with ActorSystem(f"lmdb:{path}", aggregates=[Deadline], handlers=[]) as system:
            await system.settled()
        async with open_store(f"lmdb:{path}") as store:
            return [event.note async for _, event in store.read_all(event_type=CancelledNow)]

    assert asyncio.run(serve()) == ["later"]
    assert [(each["key"], each["due"]) for each in listed(path)] == [("yearly", yearly["due"])]
