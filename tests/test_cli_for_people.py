"""``uno-actors`` as a person meets it: names, completion, live events, trees of other programs, readable JSON."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer

from tests.bank import EVENTS, credited
from tests.commands import run_command
from tests.machine import patience
from tests.test_handler_control import Seen
from tests.test_handlers_cli import in_store, served
from tests.test_projections import totals
from uno_actors import ActorSystem, AggregateRoot, Command, DeadLetter, DomainEvent, EventRegistry, handles
from uno_actors.cli.app import app
from uno_actors.cli.run import folded
from uno_actors.system.control_socket import control_directories, control_directory, key_of
from uno_stores import LmdbEventStore

COMMAND = Path(sys.executable).with_name("uno-actors")
EVIL = "\x1b[31m<script>alert(1)</script>\nerror: FORGED\u202e"


class WeighedLive(DomainEvent):
    grams: int
    raw: bytes = b"\xff"
    topic: str = "scales.weighed"


class Weigh(Command[dict[str, int]]):
    grams: int


class Scales(AggregateRoot):
    @handles
    def weigh(self, command: Weigh) -> dict[str, int]:
        self.register_event(WeighedLive(grams=command.grams))
        return {"grams": command.grams}

    def apply_weighed_live(self, event: WeighedLive) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with three commands of one aggregate, whose id is hostile, and a dead letter."""

    async def fill() -> None:
        registry = EventRegistry([WeighedLive])
        async with LmdbEventStore(tmp_path / "store", registry) as store:
            async with ActorSystem(
                store, aggregates=[Scales], handlers=[], event_registry=registry
            ) as system:
                for grams in (1, 2, 3):
                    await system.aggregate(Scales, EVIL).ask(Weigh(grams=grams, correlation_id="c"))
            letter = (await store.read_log())[1].record
            moment = letter.timestamp
            await store.save_progress(
                {EVIL: 3}, [DeadLetter(EVIL, 2, "WeighedLive", 1, EVIL, f"Traceback\n{EVIL}", moment, moment)]
            )

    asyncio.run(fill())
    return tmp_path / "store"


def run(path: Path, *arguments: str) -> str:
    ended = run_command(*arguments, "--store", f"lmdb:{path}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- one command, in any shell ---


def test_the_package_is_the_command() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "uno_actors", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: uno-actors [OPTIONS] COMMAND" in said.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_the_names_of_handlers(path: Path, tmp_path: Path, shell: str) -> None:
    seen = Seen()
    in_store(tmp_path / "other", seen.spec(), totals())

    def complete(*words: str) -> str:
        given = {
            "_UNO_ACTORS_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "UNO_ACTORS_STORE": f"lmdb:{tmp_path / 'other'}",
        }
        return run_command(environment={**os.environ, **given}).stdout

    assert "rename" in complete("uno-actors", "handlers", "r")
    names = complete("uno-actors", "handlers", "pause", "")
    assert "mail" in names
    assert "totals" in names
    assert "\x1b" not in complete("uno-actors", "handlers", "pause", "-s", f"lmdb:{path}", "")


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name.strip(), command
        return
    for each, below in command.commands.items():
        yield from leaves(below, f"{name} {each}")


def test_every_command_prints_json() -> None:
    commands = dict(leaves(typer.main.get_command(app)))
    without = {
        name
        for name, command in commands.items()
        if not any("--json" in option.opts for option in command.params)
    }
    assert without == {
        "run",
        "schema",
        "events schema",
        "dashboard",
    }  # which log, print schemas, and serve a page


# --- readable JSON ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "events"),
        ("store", "stream", EVIL),
        ("store", "trace", "c"),
        ("tail", "--from", "earliest", "--limit", "3"),
    ],
    ids=lambda arguments: arguments[1] if arguments[0] == "store" else arguments[0],
)
def test_payloads_and_replies_are_readable(path: Path, arguments: tuple[str, ...]) -> None:
    events = objects(run(path, *arguments, "--json"))
    assert [event["payload"] for event in events] == [{"grams": n, "raw": "/w=="} for n in (1, 2, 3)]
    assert [event["reply"] for event in events] == [{"grams": n} for n in (1, 2, 3)]
    assert {event["aggregate_id"] for event in events} == {EVIL}


def test_the_event_of_a_dead_letter_is_readable(path: Path) -> None:
    (letter,) = objects(run(path, "deadletters", "show", EVIL, "2", "--json"))
    assert letter["event"]["reply"] == {"grams": 2}


def test_a_trace_in_json_names_the_cause_of_each_event(path: Path) -> None:
    assert [event["below"] for event in objects(run(path, "store", "trace", "c", "--json"))] == [None] * 3


def test_what_the_commands_do_is_said_in_json_too(path: Path, tmp_path: Path) -> None:
    copy, export = tmp_path / "copy", tmp_path / "export"
    assert objects(run(path, "handlers", "pause", EVIL, "--json")) == [{"handler": EVIL, "paused": True}]
    assert objects(run(path, "handlers", "resume", EVIL, "--json")) == [{"handler": EVIL, "paused": False}]
    (moved,) = objects(run(path, "handlers", "reset", EVIL, "--to", "1", "--json"))
    assert (moved["positions"], moved["before"]) == ({EVIL: 1}, 3)
    assert objects(run(path, "deadletters", "retry", EVIL, "2", "--json")) == [
        {"handler": EVIL, "retries": 1}
    ]
    assert objects(run(path, "deadletters", "drop", EVIL, "2", "--json")) == [{"handler": EVIL, "dropped": 1}]
    assert objects(run(path, "store", "backup", str(copy), "--json"))[0]["backup"] == str(copy)
    assert objects(run(path, "store", "export", str(export), "--json"))[0]["events"] == 3
    imported = run_command("store", "import", str(export), "--store", f"lmdb:{tmp_path / 'new'}", "--json")
    assert objects(imported.stdout) == [{"events": 3, "known": 0}]
    copied = run_command("store", "copy", f"lmdb:{path}", f"lmdb:{tmp_path / 'second'}", "--json")
    assert objects(copied.stdout)[0]["events"] == 3


# --- renaming and forgetting ---


def test_a_renamed_handler_continues_where_it_was(tmp_path: Path) -> None:
    seen = Seen()
    path = tmp_path / "store"
    in_store(path, seen.spec())

    async def append(*amounts: int) -> None:
        async with LmdbEventStore(path, EVENTS) as store:
            await store.append(*credited(*amounts))

    asyncio.run(append(1, 2))
    in_store(path, seen.spec())
    assert run(path, "handlers", "rename", "mail", "post") == "mail: is named post; 1 position moved\n"
    asyncio.run(append(3))
    in_store(path, replace(seen.spec(), name="post"))
    assert seen == [1, 2, 3]
    assert run(path, "handlers", "forget", "post") == "post: forgotten; 1 position removed\n"
    assert run(path, "handlers", "list", "--json") == ""


async def test_a_handler_that_runs_is_neither_renamed_nor_forgotten(tmp_path: Path) -> None:
    seen = Seen()
    url = f"lmdb:{tmp_path / 'store'}"
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store, served(store, seen.spec()) as system:
        await store.append(*credited(1))
        await system.settled()
        for arguments in (("rename", "mail", "post"), ("forget", "mail")):
            refused = await asyncio.to_thread(
                subprocess.run,
                [COMMAND, "handlers", *arguments, "--store", url],
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode == 1
            assert "handler 'mail' is running: stop the systems that run it" in refused.stderr
        await store.append(*credited(2))
        await system.settled()
    assert seen == [1, 2]


# --- live events ---


def tail(path: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [COMMAND, "tail", "--store", f"lmdb:{path}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def weigh(path: Path, *grams: int) -> None:
    async with LmdbEventStore(path, EventRegistry([WeighedLive])) as store:
        for each in grams:
            await store.append(WeighedLive(grams=each, topic="scales.heavy" if each > 99 else "scales.light"))


def test_tail_shows_what_is_recorded_until_ctrl_c(path: Path) -> None:
    process = tail(path, "--from", "2", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["position"] == 3  # it reads: what follows is live
    asyncio.run(weigh(path, 7))
    assert json.loads(process.stdout.readline())["payload"]["grams"] == 7
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=patience(30))
    assert (out, err, process.returncode) == ("", "", 130)


def test_tail_begins_at_the_end_and_shows_what_its_filters_select(path: Path) -> None:
    process = tail(path, "--topic", "scales.heavy", "--json")
    assert process.stdout is not None
    line, sent = "", 0
    while not line:  # until it has begun, what is recorded may be before its end
        asyncio.run(weigh(path, 1, 100 + sent))
        sent += 1
        os.set_blocking(process.stdout.fileno(), False)
        line = process.stdout.readline()
    event = json.loads(line)
    assert event["topic"] == "scales.heavy"
    assert event["position"] > 3
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=patience(30))
    assert process.returncode == 130


@pytest.mark.parametrize(
    "command", [["tail", "--from", "2"], ["store", "events", "--follow", "--after", "2"]]
)
def test_what_follows_events_ends_with_the_reader_of_its_pipe(path: Path, command: list[str]) -> None:
    process = subprocess.Popen(
        [COMMAND, *command, "--store", f"lmdb:{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("POSITION")
    assert process.stdout.readline().split()[0] == "3"
    process.stdout.close()  # nothing is recorded any more, so nothing more is written
    assert process.wait(patience(30)) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


# --- trees of other programs ---

PROGRAM = """
import asyncio, sys
from uno_actors import ActorSystem, DomainEvent, subscribe

@subscribe(topic_pattern="shop.*", name="mail", partitioned=16)
async def mail(event: DomainEvent) -> None: ...

async def serve(started):
    async with ActorSystem("lmdb:" + sys.argv[1], name="shop", aggregates=[]) as system:
        await system.settled()
        started()
        await asyncio.Event().wait()
"""
PLAIN = "asyncio.run(serve(lambda: print('ready', flush=True)))"
UVICORN = """
import uvicorn

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    started = asyncio.Event()
    serving = asyncio.ensure_future(serve(started.set))
    await started.wait()
    await send({"type": "lifespan.startup.complete"})
    print("ready", flush=True)
    await receive()
    serving.cancel()
    await asyncio.wait([serving])
    await send({"type": "lifespan.shutdown.complete"})

uvicorn.run(app, port=0, log_level="warning")
"""


@pytest.mark.parametrize("serving", [PLAIN, UVICORN], ids=["a plain program", "uvicorn"])
def test_the_tree_of_a_system_in_any_program_is_found_by_its_store(tmp_path: Path, serving: str) -> None:
    pytest.importorskip("uvicorn")
    store = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + serving, str(store)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        shown = run_command("tree", f"lmdb:{store}")
        assert shown.returncode == 0, shown.stderr
        first, *others = shown.stdout.splitlines()
        assert first.startswith(f"shop, process {process.pid}, up ")
        assert [line.strip() for line in others[1:]] == ["└─ mail  handler, 16 partitions: 16 live"]
        whole = run_command("tree", f"lmdb:{store}", "--partitions").stdout
        assert whole.count("mail@") == 16
        assert json.loads(run_command("tree", f"lmdb:{store}", "--json").stdout)["system"] == "shop"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(patience(30))
        assert process.stdout is not None
        process.stdout.close()
    gone = run_command("tree", f"lmdb:{store}")
    assert gone.returncode == 1
    assert f"no process runs the system of lmdb:{store}" in gone.stderr


def test_a_place_of_sockets_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        url = "postgresql+asyncpg://host/shop"
        made = control_directory(url, key_of(url))
        assert control_directories(url, key_of(url)).count(made) == 1


def test_partitions_are_folded_with_their_states_and_sums() -> None:
    def node(name: str, state: str = "live", kind: str = "handler") -> dict[str, Any]:
        return {"name": name, "kind": kind, "state": state, "restarts": 1, "waiting": 2, "children": []}

    alone, two = node("audit"), [node("mail@1of2"), node("mail@2of2", "standby")]
    (first, mail, actor) = folded([alone, *two, node("x@1of2", kind="actor")])
    assert first == alone
    assert actor["name"] == "x@1of2"
    assert mail["name"] == "mail"
    assert mail["state"] == "2 partitions: 1 live, 1 standby"
    assert (mail["restarts"], mail["waiting"]) == (2, 4)


# --- hostile texts ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("tail", "--from", "earliest", "--limit", "3"),
        ("store", "trace", "c"),
        ("handlers", "rename", EVIL, f"{EVIL}2"),
        ("handlers", "forget", EVIL),
        ("handlers", "rename", "nothing", EVIL),
        ("tree", f"lmdb:{EVIL}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]) if EVIL not in arguments[1] else arguments[0],
)
def test_no_command_prints_control_characters(path: Path, arguments: tuple[str, ...]) -> None:
    more = () if arguments[0] == "tree" else ("--store", f"lmdb:{path}")
    ended = run_command(*arguments, *more)
    lines = [*ended.stdout.splitlines(), *ended.stderr.splitlines()]
    assert lines
    assert all(map(str.isprintable, lines))
    assert not any(line.startswith("error: FORGED") for line in lines)
