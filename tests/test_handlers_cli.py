"""``uno-actors handlers`` and ``uno-actors deadletters``, in this process and as users start them."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.bank import EVENTS, Credited, credited
from tests.commands import run_command
from tests.test_handler_control import Seen, info
from tests.test_projections import totals
from tests.waiting import until
from uno_actors import ActorSystem, Backoff, Supervisor
from uno_actors.cli import app as cli
from uno_stores import LmdbEventStore

COMMAND = Path(sys.executable).with_name("uno-actors")


def served(store: LmdbEventStore, *handlers: Any) -> ActorSystem:
    quick = Supervisor("quick", handlers, max_restarts=None, backoff=Backoff(initial=0, max=0))
    return ActorSystem(store, aggregates=[], handlers=[], supervisors=[quick])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store on which the handler ``mail`` has failed at two of four events, and a projection has run."""

    async def fill() -> None:
        seen = Seen()
        seen.bad = {2, 3}
        async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
            async with served(store, seen.spec(max_attempts=2), totals()) as system:
                await store.append(*credited(1, 2, 3, 4))
                await system.settled()
            await store.append(*credited(5))

    asyncio.run(fill())
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNO_ACTORS_STORE", raising=False)


def run(path: Path, group: str, name: str, *arguments: str) -> str:
    """What ``uno-actors GROUP NAME ...`` prints, in this process."""
    result = CliRunner().invoke(cli.app, [group, name, "-s", f"lmdb:{path}", *arguments])
    if result.exception:
        raise result.exception
    return result.output


async def started(path: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command as users start it, while this process continues."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, "-s", f"lmdb:{path}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await process.communicate()
    return process.returncode, out.decode(), error.decode()


def listed(path: Path, group: str = "handlers", *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(path, group, "list", "--json", *arguments).splitlines()]


def in_store(path: Path, *handlers: Any) -> None:
    """One run of a system with these handlers, until they have handled everything."""

    async def serve() -> None:
        async with LmdbEventStore(path, EVENTS) as store, served(store, *handlers) as system:
            await system.settled()

    asyncio.run(serve())


# --- handlers ---


def test_handlers_are_listed_with_their_state(path: Path) -> None:
    shown = [line.split() for line in run(path, "handlers", "list").splitlines()]
    assert shown == [
        ["HANDLER", "STATE", "POSITION", "LAG", "FAILURES", "LETTERS"],
        ["mail", "not", "running", "4", "1", "-", "2"],
        ["totals", "not", "running", "4", "1", "-", "0"],
    ]
    mail, view = listed(path)
    assert mail == {
        "name": "mail",
        "position": 4,
        "lag": 1,
        "state": "not running",
        "failures": None,
        "dead_letters": 2,
        "paused": False,
        "reset_to": None,
        "retries": 0,
        "view": None,
        "node": None,
        "partitions": 0,
    }
    assert (view["name"], view["view"]) == ("totals", "totals@1")


def test_a_handler_is_paused_and_resumed_while_no_process_runs_it(path: Path) -> None:
    assert run(path, "handlers", "pause", "mail", "totals") == "mail: paused\ntotals: paused\n"
    assert [(each["state"], each["paused"]) for each in listed(path)] == [("paused", True)] * 2
    seen = Seen()
    in_store(path, seen.spec())
    assert seen == []
    assert run(path, "handlers", "resume", "mail") == "mail: resumed\n"
    in_store(path, seen.spec())
    assert seen == [5]
    assert [each["state"] for each in listed(path)] == ["not running", "paused"]


@pytest.mark.parametrize(
    ("place", "position", "text"),
    [
        ("1", 1, ": 3 positions handled again"),
        ("3", 3, ": 1 position handled again"),
        ("earliest", 0, ": 4 positions handled again"),
        ("latest", 5, ": 1 position skipped"),
        ("4", 4, ", where it is"),
        ("2001-01-01", 0, ": 4 positions handled again"),
        ("2999-01-01T12:00:00+01:00", 5, ": 1 position skipped"),
    ],
)
def test_a_handler_is_reset_to_a_position_or_time(path: Path, place: str, position: int, text: str) -> None:
    shown = run(path, "handlers", "reset", "mail", "--to", place)
    assert shown == f"mail: continues after position {position}{text}\n"
    assert listed(path)[0]["reset_to"] == position
    assert run(path, "handlers", "list").splitlines()[1].endswith(f"  reset to {position}")
    seen = Seen()
    in_store(path, seen.spec())
    assert seen == list(range(position + 1, 6))


def test_a_handler_replays_only_events_that_it_has_handled(path: Path) -> None:
    assert run(path, "handlers", "replay", "mail") == (
        "mail: continues after position 0: 4 positions handled again\n"
    )
    assert run(path, "handlers", "replay", "mail", "--from", "2").endswith(": 2 positions handled again\n")
    shown = run(path, "handlers", "replay", "totals")
    assert (
        shown
        == "totals: continues after position 0, in a new view; totals@1 is served until that has caught up\n"
    )
    in_store(path, totals())
    assert listed(path)[1]["view"] == "totals@1.1"


async def test_a_running_system_carries_out_requests_of_another_process(path: Path) -> None:
    seen = Seen()
    async with LmdbEventStore(path, EVENTS) as store, served(store, seen.spec(), totals()) as system:
        await system.settled()
        assert await started(path, "handlers", "pause", "mail") == (0, "mail: paused\n", "")
        await until(lambda: system.statistics().handlers["mail"].state == "paused")
        await store.append(*credited(6))
        await system.settled()
        code, out, error = await started(path, "handlers", "list", "--json")
        mail, view = [json.loads(line) for line in out.splitlines()]
        assert (code, error, mail["paused"], mail["lag"]) == (0, "", True, 1)
        assert (view["state"], view["failures"]) == ("live", 0), "as the running system has told"
        await started(path, "handlers", "resume", "mail")
        await until(lambda: seen == [5, 6])
        code, out, _ = await started(path, "handlers", "reset", "mail", "--to", "3")
        assert (code, out) == (0, "mail: continues after position 3: 3 positions handled again\n")
        await until(lambda: seen == [5, 6, 4, 5, 6])
        assert (await started(path, "deadletters", "retry", "mail", "--all", "--wait", "20"))[:2] == (
            0,
            "mail: will retry 2 dead letters\nmail: 2 dead letters handled\n",
        )
        assert (seen[5:], (await info(system)).dead_letters) == ([2, 3], 0)


# --- dead letters ---


def test_dead_letters_are_listed_and_shown(path: Path) -> None:
    shown = run(path, "deadletters", "list").splitlines()
    assert shown[0].split() == [
        "HANDLER",
        "POSITION",
        "EVENT",
        "ATTEMPTS",
        "LAST",
        "FAILED",
        "(UTC)",
        "ERROR",
    ]
    assert [line.split()[:4] for line in shown[1:]] == [
        ["mail", "2", "Credited", "2"],
        ["mail", "3", "Credited", "2"],
    ]
    assert "ValueError: not 2" in shown[1]
    letters = listed(path, "deadletters", "--handler", "mail")
    assert [(letter["position"], letter["error"]) for letter in letters] == [
        (2, "ValueError: not 2"),
        (3, "ValueError: not 3"),
    ]
    assert listed(path, "deadletters", "--handler", "totals") == []
    whole = run(path, "deadletters", "show", "mail", "3")
    assert "error: ValueError: not 3\n" in whole
    assert '"amount": 3' in whole
    assert "Traceback (most recent call last)" in whole
    found = json.loads(run(path, "deadletters", "show", "mail", "3", "--json"))
    assert (found["attempts"], found["event"]["position"]) == (2, 3)
    assert found["traceback"].endswith("ValueError: not 3\n")


def test_dead_letters_are_dropped(path: Path) -> None:
    assert run(path, "deadletters", "drop", "mail", "3") == "mail: 1 dead letter dropped\n"
    assert [letter["position"] for letter in listed(path, "deadletters")] == [2]
    assert run(path, "deadletters", "drop", "mail", "--all") == "mail: 1 dead letter dropped\n"
    assert run(path, "deadletters", "drop", "mail", "--all") == "mail: 0 dead letters dropped\n"
    assert listed(path, "deadletters") == []


def test_a_retry_waits_in_the_store_until_the_handler_runs(path: Path) -> None:
    assert run(path, "deadletters", "retry", "mail", "3") == "mail: will retry 1 dead letter\n"
    assert run(path, "handlers", "list").splitlines()[1].endswith("  retry 1")
    seen = Seen()
    in_store(path, seen.spec())
    assert seen == [3, 5]
    assert [letter["position"] for letter in listed(path, "deadletters")] == [2]


async def test_a_command_that_waits_for_a_retry_reports_its_outcome(path: Path) -> None:
    seen = Seen()
    seen.bad = {3}
    waiting = ("deadletters", "retry", "mail", "2", "3", "--wait")
    code, out, error = await started(path, *waiting, "0.2")
    assert (code, out) == (1, "mail: will retry 2 dead letters\n")
    assert error.startswith("error: 2 dead letters not retried within 0.2 s: the handler does not run")
    async with LmdbEventStore(path, EVENTS) as store, served(store, seen.spec()) as system:
        await system.settled()
        await store.save_progress({}, [letter._replace(position=2) for letter in await store.dead_letters()])
        code, _, error = await started(path, *waiting, "20")
    assert (code, error) == (1, "error: 1 dead letter of 2 failed again: position 3: ValueError: not 3\n")


# --- how it ends ---


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["handlers", "pause", "nail"], 1, "no handler is named 'nail'; there are: mail, totals"),
        (["handlers", "pause", "mail", "nail"], 1, "there are: mail, totals"),
        (["handlers", "resume", "nail"], 1, "there are: mail, totals"),
        (["handlers", "pause"], 2, "NAME"),
        (["handlers", "reset", "nail", "--to", "3"], 1, "there are: mail, totals"),
        (["handlers", "reset", "mail"], 2, "--to"),
        (["handlers", "reset", "mail", "--to", "6"], 1, "after position 6: the log ends at 5"),
        (["handlers", "reset", "mail", "--to", "noon"], 2, "is none of: earliest, latest, a position"),
        (["handlers", "reset", "totals", "--to", "3"], 1, "reset it to 'earliest' alone"),
        (["handlers", "replay", "mail", "--from", "5"], 1, "nothing to replay after position 5"),
        (["deadletters", "list", "--handler", "nail"], 1, "there are: mail, totals"),
        (["deadletters", "show", "mail", "4"], 1, "mail has no dead letter at position 4"),
        (["deadletters", "drop", "mail", "2", "4"], 1, "mail has no dead letter at position 4"),
        (["deadletters", "drop", "nail", "2"], 1, "there are: mail, totals"),
        (["deadletters", "retry", "mail", "1"], 1, "mail has no dead letter at position 1"),
        (["deadletters", "retry", "mail"], 2, "--all"),
        (["deadletters", "drop", "mail", "2", "--all"], 2, "--all"),
    ],
)
def test_exit_codes_tell_refusals_from_wrong_usage(
    path: Path, arguments: list[str], code: int, text: str
) -> None:
    found, out, error = run_command(*arguments, "-s", f"lmdb:{path}")
    assert (found, out) == (code, "")
    assert text in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error
    assert [letter["position"] for letter in listed(path, "deadletters")] == [2, 3], "nothing was done"
    assert not any(each["paused"] or each["reset_to"] or each["retries"] for each in listed(path))


@pytest.mark.parametrize("group", ["handlers", "deadletters"])
def test_a_typing_error_creates_no_store(tmp_path: Path, group: str) -> None:
    result = CliRunner().invoke(cli.app, [group, "list", "-s", f"lmdb:{tmp_path / 'typo'}"])
    assert "there is no store in" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_move_the_cursor_are_shown_as_text(tmp_path: Path) -> None:
    async def fill() -> None:
        async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
            await store.append(Credited(amount=1))
            await store.save_progress({"evil\x1b[2J": 1})

    asyncio.run(fill())
    assert "evil\\x1b[2J" in run(tmp_path / "store", "handlers", "list")
    assert run(tmp_path / "store", "handlers", "pause", "evil\x1b[2J") == "evil\\x1b[2J: paused\n"


def test_a_handler_with_a_long_name_is_on_one_line_in_a_pipe(tmp_path: Path) -> None:
    name = "handler-" * 20

    async def fill() -> None:
        async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
            await store.save_progress({name: 0})

    asyncio.run(fill())
    for arguments in (("handlers", "list"), ("store", "info")):
        (line,) = [line for line in run(tmp_path / "store", *arguments).splitlines() if name in line]
        assert line.split()[-1] == "0"
