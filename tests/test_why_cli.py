"""``uno-actors why``, and what else people ask and say on the command line for it."""

import asyncio
import getpass
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.bank import EVENTS, Account, BankStore, Credit
from tests.commands import run_command
from tests.waiting import until
from tests.why_situations import Handling, bank, credit, normalised, working
from uno_actors import ActorSystem, Explanation, Finding, HandlerControl, Remedy
from uno_actors.handlers.requests import Pause
from uno_actors.inquiry.inquiry import inquire
from uno_actors.ops.sources import SystemSource
from uno_stores import LmdbEventStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store on which ``mail`` has handled a command's event, and then no process."""

    async def fill() -> None:
        async with bank(f"lmdb:{tmp_path / 'store'}", Handling().spec()) as system:
            await credit(system, 1, "c")
            await system.settled()

    asyncio.run(fill())
    return f"lmdb:{tmp_path / 'store'}"


def test_the_command_prints_the_answer(url: str) -> None:
    ended = run_command("why", "mail", "--store", url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "Handler mail has come to the end of the log, position 1. But no process runs it: start the program that"
        " has it.\n"
    )


def test_the_command_ends_with_1_if_nothing_is_known(url: str) -> None:
    ended = run_command("why", "mial", "--store", url)
    assert ended.returncode == 1
    assert "Did you mean mail?" in ended.stdout


def test_the_answer_is_one_json_object(url: str) -> None:
    ended = run_command("why", "c", "--store", url, "--json")
    found = json.loads(ended.stdout)
    assert (found["id"], found["kind"], found["state"]) == ("c", "command", "done")
    (finding,) = found["findings"]
    assert finding["subject"] == "Account<alice>"
    assert [each["says"] for each in finding["below"]] == [
        "Past it: mail. Which events they subscribe to is known only while the program runs."
    ]


def test_hostile_ids_are_shown_as_escapes(url: str) -> None:
    ended = run_command("why", "\x1b[31m\nerror: FORGED\u202e", "--store", url)
    assert ended.returncode == 1
    assert "\x1b" not in ended.stdout
    assert not any(line.startswith("error:") for line in ended.stdout.splitlines())


def test_a_pause_says_who_and_why(url: str) -> None:
    run_command("handlers", "pause", "mail", "--note", "printer", "--store", url)
    ended = run_command("why", "mail", "--store", url)
    by = f"paused by {getpass.getuser()}@{socket.gethostname()} since"
    assert by in ended.stdout
    assert 'with the note "printer"' in ended.stdout
    assert f"To resume it: uno-actors handlers resume mail --store {url}" in ended.stdout


async def test_a_pause_of_an_earlier_version_is_a_pause_by_someone(url: str) -> None:
    async with LmdbEventStore(url.removeprefix("lmdb:"), EVENTS) as store:
        await HandlerControl(store).pause("mail")  # recorded as before: that there is one, and no more
        assert await HandlerControl(store).pauses() == {"mail": Pause()}
        await HandlerControl(store).pause("mail", note="printer")
        assert (await HandlerControl(store).pauses())["mail"].note == "printer"


async def test_other_questions_to_a_held_process_are_answered_at_once(tmp_path: Path) -> None:
    async with working(tmp_path, "held"):
        ended = await asyncio.to_thread(run_command, "tree", f"lmdb:{tmp_path / 'store'}")
    assert "code of the program holds its event loop" in ended.stdout + ended.stderr


async def test_a_program_gets_the_answer_as_values(tmp_path: Path) -> None:
    store = f"lmdb:{tmp_path / 'store'}"
    async with bank(store, Handling(1).spec(max_attempts=1)) as system:
        await credit(system, 1, "c")
        await system.settled()
        found = await system.why("c")
    assert (found.kind, found.state) == ("command", "failed")
    assert [each.state for each in found.walk()] == ["done", "failed"]
    assert found.findings[0].below[0].remedies[1] == Remedy(
        "To try it once more, when its cause is mended",
        f"uno-actors deadletters retry mail 1 --store {store}",
    )


def test_the_process_of_a_configuration_file_is_found(tmp_path: Path) -> None:
    """Also where the store has no directory: the socket is named after the file."""
    file = tmp_path / "bank.toml"
    file.write_text(f'[system]\nname = "bank"\nstore = "sqlite+aiosqlite:///{tmp_path}/bank.db"\n')
    with ActorSystem.from_config(file, aggregates=[Account], handlers=[Handling().spec()]) as system:
        system.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c")).get(timeout=10)
        system.run(system.settled())
        ended = run_command("why", "c", "--config", str(file))
    assert ended.stdout.splitlines()[-1] == "└─ mail has handled it."


class Hanging(BankStore):
    """Answers nothing any more when it hangs."""

    hangs = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in ASKED and self.hangs:
            return lambda *_, **__: asyncio.Event().wait()
        return found


ASKED = {
    "aggregate_types",
    "read_log",
    "read_stream",
    "read_view",
    "last_positions",
    "last_version",
    "checkpoints",
}


async def test_a_store_that_hangs_is_named_and_the_rest_is_answered() -> None:
    store = Hanging()
    async with bank(store, stop_timeout=0.1) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c"), timeout=0.5)
        await until(lambda: store.commits_asked == 2)
        store.hangs = True
        place = SystemSource(system)
        found = await inquire(place, "c", patience=0.05, searching=0.05)
        store.hangs = False
        assert normalised(found) == (
            "Credit c was decided by Account<alice>, in process N (NODE); its events have waited N s for the store.\n"
            "Not asked: what is scheduled: no answer within N s\n"
            "Not asked: the handlers: no answer within N s\n"
            "Not asked: the streams: no answer within N s\n"
            "Not asked: the ends of the log: no answer within N s\n"
            "Not asked: the log: no answer within N s"
        )
        store.gate.set()
        await reply


def test_a_synchronous_program_asks_too(tmp_path: Path) -> None:
    with ActorSystem(f"lmdb:{tmp_path / 'store'}", aggregates=[], handlers=[Handling().spec()]) as system:
        assert system.run(system.why("mail")).state == "done"


def test_the_gravest_state_counts_and_every_line_is_printable() -> None:
    shown = Explanation(
        "x", "event", (Finding("one\x1b[0m", "done", below=(Finding("two\nthree", "waits"),)),), ("no",)
    )
    assert shown.state == "waits"
    assert normalised(shown) == "one\\x1b[0m\n└─ two\\nthree\nNot asked: no"
