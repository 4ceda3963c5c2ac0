"""Recordings as files and on the command line: drawn, filtered, merged; damaged ones are refused with the place."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from configured import Sold
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import EVENTS, Account, Credit
from tests.commands import run_command
from tests.machine import patience
from uno_actors import ActorSystem, EventRegistry, RecordingNotReadable
from uno_actors.flight_recorder.files import Recording, lines_of, of_lines, read, write
from uno_actors.flight_recorder.steps import KINDS, Step
from uno_actors.flight_recorder.timeline import duration, merged, of_processes
from uno_actors.ops.processes import ask_processes
from uno_actors.system.control_socket import control_directories, key_of
from uno_actors.system.state import STEPS_OF
from uno_stores import LmdbEventStore

HERE = Path(__file__).parent.parent
EVIL = "\x1b[31m<script>\nerror: FORGED\u202e"


def step(second: float = 0.0, kind: str = "sent", **facts: Any) -> Step:
    chosen: dict[str, Any] = {"node": "bank@one", "who": "Account<alice>", "what": "Credit"} | facts
    return Step(kind=kind, time=1_800_000_000 + second, **chosen)


def recording(*steps: Step, node: str = "bank@one") -> Recording:
    return Recording.now("bank", node, "asked for", steps)


def kept(directory: Path, *steps: Step, node: str = "bank@one") -> Path:
    return write(recording(*steps, node=node), directory)


# --- files ---


steps = st.builds(
    Step,
    kind=st.sampled_from(KINDS),
    time=st.floats(0, 2e9),
    node=st.text(),
    who=st.text(),
    what=st.text(),
    seconds=st.none() | st.floats(0, 1e6),
    events=st.none() | st.integers(1, 100),
    first=st.none() | st.integers(1, 2**53),
    position=st.none() | st.integers(1, 2**53),
    command_id=st.none() | st.text(min_size=1),
    reason=st.none() | st.text(min_size=1),
)


@given(st.lists(steps, max_size=5), st.text(), st.text())
def test_what_is_written_is_read(found: list[Step], node: str, why: str) -> None:
    written = Recording.now("bank", node, why, found)
    text = "\n".join(lines_of(written))
    assert text.isascii()
    (again,) = of_lines(text.split("\n"), "file")
    if all(part.isprintable() for part in (node, why, str(found))):  # halves of characters become escapes
        assert again == written
    assert len(again.steps) == len(found)


def test_several_recordings_may_be_in_one_file(tmp_path: Path) -> None:
    one, other = recording(step()), recording(step(1), step(2), node="bank@two")
    path = tmp_path / "both"
    path.write_text("\n".join([*lines_of(one), *lines_of(other)]) + "\n")
    assert read(path) == [one, other]


def damaged(tmp_path: Path, change: Any) -> str:
    path = kept(tmp_path, step(), step(1))
    path.write_bytes(change(path.read_bytes()))
    ended = run_command("recording", str(path))
    assert ended.returncode == 1
    with pytest.raises(RecordingNotReadable):
        read(path)
    return ended.stderr


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "line 1 is not the header"),
        (lambda data: b"{}\n", "line 1 is not the header"),
        (lambda data: b"[1]\n", "line 1 is not a JSON object"),
        (lambda data: b"\xff\xfe", "UnicodeDecodeError"),
        (lambda data: data[:-20], "line 3 is damaged"),
        (lambda data: data[: data.rindex(b"{")], "it was cut off: it has 1 of 2 steps"),
        (
            lambda data: data.replace(b'"kind": "sent"', b'"kind": 3', 1),
            "line 2 is not a step: its kind is 3",
        ),
        (
            lambda data: data.replace(b'"who": "Account<alice>", ', b"", 1),
            "line 2 is not a step: it has no who",
        ),
        (lambda data: data.replace(b'recording": 1', b'recording": 9', 1), "its format is 9"),
        (
            lambda data: data.replace(b'"process": ', b'"process": "x", "": ', 1),
            "the header in line 1 is damaged",
        ),
    ],
    ids=["empty", "no header", "a list", "not text", "half a line", "cut", "kind", "who", "format", "header"],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, change: Any, reason: str) -> None:
    assert reason in damaged(tmp_path, change)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damage_of_any_kind_is_an_error_of_its_own(data: bytes, place: int) -> None:
    text = "\n".join(lines_of(recording(step(), step(1)))).encode()
    broken = text[:place] + data + text[place + len(data) :]
    with suppress(RecordingNotReadable):
        of_lines(broken.decode("utf-8", "replace").splitlines(), "file")


def test_a_disk_that_is_full_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept(tmp_path, step())
    assert not [*tmp_path.iterdir()]


# --- the command ---


def drawn(*arguments: object) -> str:
    ended = run_command("recording", *map(str, arguments))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_timeline_counts_from_the_first_step_that_is_shown(tmp_path: Path) -> None:
    path = kept(
        tmp_path,
        step(0, command_id="one"),
        step(1.5, "failed", command_id="two", seconds=0.25, reason="ValueError: no"),
    )
    rows = drawn(path).splitlines()[-2:]
    assert rows[0].split() == ["+0.000000", "sent", "Account<alice>", "Credit", "#one"]
    assert (
        " ".join(rows[1].split()) == "+1.500000 >> failed Account<alice> 250.0 ms Credit #two: ValueError: no"
    )
    assert drawn(path, "--id", "two").splitlines()[-1].startswith("+0.000000")


def test_files_of_several_nodes_are_one_timeline(tmp_path: Path) -> None:
    one = kept(tmp_path, step(0), step(2))
    other = kept(tmp_path, step(1, node="bank@two"), node="bank@two")
    rows = [line.split()[:2] for line in drawn(one, other).splitlines()[-3:]]
    assert rows == [["+0.000000", "bank@one"], ["+1.000000", "bank@two"], ["+2.000000", "bank@one"]]


@given(st.lists(st.lists(st.floats(0, 100)), max_size=4))
def test_merging_keeps_every_step_and_orders_them(times: list[list[float]]) -> None:
    each = [
        [step(second, node=str(number)) for second in sorted(found)] for number, found in enumerate(times)
    ]
    whole = merged(each)
    assert len(whole) == sum(map(len, each))
    assert [one.time for one in whole] == sorted(one.time for one in whole)
    for number, found in enumerate(each):
        assert [one for one in whole if one.node == str(number)] == found


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.001, 0.5, 3.0]), max_size=12),
    cuts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.floats(-0.1, 0.1)), max_size=4),
)
def test_steps_that_several_recordings_of_a_process_have_are_shown_once(
    gaps: list[float], cuts: list[tuple[int, int, float]]
) -> None:
    """Each holds the latest steps at another moment, and reckons the times of the day anew."""
    at, every = 0.0, []
    for number, gap in enumerate(gaps):
        at += gap
        every.append(step(at, "routed", position=number // 2))  # each occurs twice
    files, begin, end = [recording(*every[:0])], 0, 0
    for number, (more, lost, skew) in enumerate(cuts):
        end = min(len(every), end + more)
        begin = min(end, begin + lost) if number else 0
        shifted = [replace(each, time=each.time + skew) for each in every[begin:end]]
        files.append(replace(recording(*shifted), written=float(number)))
    (found,) = of_processes(files)
    had = set()
    for each in files:
        had |= {one.position for one in each.steps}
    assert {one.position for one in found} == had
    assert max((sum(one.position == each for one in found) for each in had), default=0) <= 2
    assert [one.time for one in found] == sorted(one.time for one in found)
    alone = recording(*every)
    assert of_processes([alone]) == [every] == of_processes([alone, alone])


def test_the_same_file_given_twice_and_another_process_of_the_node(tmp_path: Path) -> None:
    file = kept(tmp_path, step(0), step(0), step(2))
    assert len(drawn(file, file, "--json").splitlines()) == 3
    other = replace(recording(step(0)), process=1)
    assert len(of_processes([recording(step(0)), other])) == 2


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file, url = kept(tmp_path, step(0)), f"lmdb:{tmp_path / 'store'}"
    asyncio.run(LmdbEventStore(tmp_path / "store").close())
    options = (
        "--scenario",
        str(tmp_path / "none" / "x.py"),
        "--store",
        url,
        "--system",
        "tests.bank:Account",
    )
    ended = run_command("recording", str(file), *options)
    assert ended.returncode == 2
    assert "cannot be written: FileNotFoundError" in " ".join(ended.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--kind", "failed"), [2]),
        (("--kind", "failed", "--kind", "sent"), [0, 1, 2]),
        (("--since", "1500ms"), [1, 2]),
        (("--since", "2027-01-15T08:00:02"), [2]),
        (("--id", "alice", "--kind", "sent"), [0]),
        (("--id", "unknown"), []),
    ],
    ids=lambda part: "-".join(part) if part and isinstance(part[0], str) else None,
)
def test_filters_choose_steps(tmp_path: Path, arguments: tuple[str, ...], left: list[int]) -> None:
    found = (step(0, aggregate_id="alice"), step(1), step(2, "failed"))
    lines = drawn(kept(tmp_path, *found), "--json", *arguments).splitlines()
    assert [Step.of_fields(json.loads(line)) for line in lines] == [found[number] for number in left]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "name files, or a running system by --of"),
        (("FILE", "--of", "lmdb:x"), "name files, or a running system by --of"),
        (("FILE", "--kind", "lost"), "expected one of sent"),
        (("FILE", "--since", "soon"), "expected a time"),
        (("FILE", "--save", "."), "--save keeps what --of takes"),
        (("missing",), "does not exist"),
    ],
    ids=["nothing", "both", "kind", "since", "save", "missing"],
)
def test_a_wrong_command_line_is_refused_with_what_is_allowed(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    path = kept(tmp_path, step())
    ended = run_command("recording", *(str(path) if part == "FILE" else part for part in arguments))
    assert ended.returncode == 2
    assert reason in " ".join(re.sub(r"[│╭╰─]", " ", ended.stderr).split())


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    path = kept(tmp_path, step(node=EVIL, who=EVIL, what=EVIL, reason=EVIL, command_id=EVIL), node=EVIL)
    assert path.parent == tmp_path
    text = drawn(path, "--whole")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("error: FORGED") for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.0, "0 us"), (85e-6, "85 us"), (0.0031, "3.1 ms"), (1.25, "1.25 s")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


async def test_a_running_system_is_asked_for_its_steps(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'store'}"
    async with ActorSystem(url, aggregates=[Account], handlers=[], event_registry=EVENTS) as system:
        command = Credit(amount=1)
        await system.aggregate(Account, "alice").ask(command)
        process = await _start(
            "recording", "--of", url, "--id", command.command_id, "--save", str(tmp_path / "kept")
        )
        code, said = await _end(process)
        assert code == 0, said
        asked = await asyncio.to_thread(
            lambda: [*ask_processes(control_directories(url, key_of(url)), STEPS_OF + command.command_id)]
        )
        assert [Step.of_fields(each).kind for each in asked[0]["steps"]][:3] == ["sent", "taken", "decided"]
    assert "answered" in said
    (path,) = (tmp_path / "kept").iterdir()
    assert any(found.command_id == command.command_id for found in read(path)[0].steps)
    ended = run_command("recording", "--of", url)
    assert (ended.returncode, "no process runs" in ended.stderr) == (1, True)


async def _start(*arguments: str) -> Any:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "uno_actors",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _end(process: Any) -> tuple[int, str]:
    out, _ = await process.communicate()
    return process.returncode, out.decode()


# --- processes ---

PROGRAM = """
import asyncio, sys
from tests.bank import EVENTS, Account, Credit, Credited
from uno_actors import ActorSystem, Backoff, Supervisor, subscribe

@subscribe(Credited, name="doomed", max_attempts=9)
async def doomed(event):
    raise ValueError("for ever")

async def main():
    strict = Supervisor("strict", [doomed], max_restarts=1, within=60, backoff=Backoff(0, 0))
    options = {"aggregates": [Account], "supervisors": [strict], "handlers": [], "event_registry": EVENTS}
    async with ActorSystem(sys.argv[1], **options) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
        await system.wait_stopped()

asyncio.run(main())
"""


def test_a_program_whose_supervisor_gives_up_leaves_a_recording(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"lmdb:{tmp_path / 'store'}"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SupervisorGaveUp" in ended.stderr
    (path,) = (tmp_path / "store" / "recordings").iterdir()
    text = drawn(path)
    assert ">> gave up" in text
    assert "for ever" in text


FILE = """
[system]
name = "shop"
store = "lmdb:data"
[[handlers]]
name = "note"
handler = "configured:note"
"""

HOLDING = """
import time
from uno_actors import subscribe
from configured import Sold

@subscribe(Sold, name="holder")
async def hold(event: Sold) -> None:
    while True:
        time.sleep(0.05)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
@pytest.mark.parametrize("options", [(), ("--workers", "1")], ids=["alone", "workers"])
def test_a_service_writes_its_steps_on_sigusr1(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "shop.toml").write_text(FILE)
    path = written_on_signal(tmp_path, "system started", options)
    (found,) = read(path)
    assert (found.why, found.system) == ("SIGUSR1", "shop/1" if options else "shop")


def written_on_signal(directory: Path, ready: str, options: tuple[str, ...] = ()) -> Path:
    """Run the service in a directory, send SIGUSR1 until there is a recording, and end the service."""
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uno_actors", "run", "shop.toml", *options],
            cwd=directory,
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": f"{HERE}:{directory}", "NOTES": str(directory / "notes")},
        )
    try:
        until = time.monotonic() + patience(30)
        found: list[Path] = []
        sent = 0.0
        while not found:
            assert time.monotonic() < until, log.read_text()
            assert process.poll() is None, log.read_text()
            if ready in log.read_text() and time.monotonic() - sent > 1:
                process.send_signal(signal.SIGUSR1)
                sent = time.monotonic()
            time.sleep(0.05)
            found = [*(directory / "data" / "recordings").glob("*.recording")]
        return found[0]
    finally:
        process.kill() if "--workers" not in options else process.terminate()
        process.wait()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_steps_are_written_even_while_a_handler_holds_the_event_loop(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(FILE + '[[handlers]]\nhandler = "holding:hold"\nstart = "earliest"\n')
    (tmp_path / "holding.py").write_text(HOLDING)

    async def sell() -> None:
        async with LmdbEventStore(tmp_path / "data", EventRegistry([Sold])) as store:
            await store.append(Sold(price=1))

    asyncio.run(sell())
    path = written_on_signal(tmp_path, "uno_actors")
    assert read(path)[0].why == "SIGUSR1"
