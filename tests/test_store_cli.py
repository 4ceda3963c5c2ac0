"""``uno-actors store``: in this process, and as the command that users start where streams and signals matter."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner
from typing_extensions import override

from tests.commands import Ended, run_command
from tests.machine import patience
from uno_actors import ActorSystem, DeadLetter, DomainEvent, EventRegistry, Projection, Snapshot
from uno_actors.cli import app as cli
from uno_actors.cli.record_lines import UnreadableLine, from_line, to_line
from uno_actors.errors import CallerError
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.codec import Record, StreamId, pack, to_record
from uno_actors.store.records import StoredRecord, ViewChange
from uno_stores import LmdbEventStore
from uno_stores.lmdb.reader import stream_prefix
from uno_stores.lmdb.searching import NAMES, Databases, sealed

COMMAND = Path(sys.executable).with_name("uno-actors")
MOMENT = datetime(2024, 2, 29, 12, 30, 59, 123456, tzinfo=UTC)


class Weighed(DomainEvent):
    """An event whose class the command does not know: it is in no registry that the command uses."""

    grams: Any = 0


class Other(Weighed):
    pass


def weighed(aggregate_id: str | None, grams: Any = 0, *, of: str = "Parcel", **metadata: Any) -> Weighed:
    return Weighed(
        grams=grams,
        aggregate_id=aggregate_id,
        aggregate_type=aggregate_id and of,
        timestamp=MOMENT,
        **metadata,
    )


async def fill(store: LmdbEventStore) -> None:
    await store.append(weighed("a", 1, topic="parcels.weighed", correlation_id="c"), weighed("b", 2))
    await store.append(
        weighed("a", 3, topic="parcels.weighed.again"), weighed(None, 4), weighed("b", 5, of="Box")
    )
    await store.append(Other(grams=6, aggregate_id="a", aggregate_type="Parcel"))
    letter = DeadLetter("mail", 2, "Weighed", 3, "ValueError", "Traceback", MOMENT, MOMENT)
    await store.save_progress({"mail": 2, "audit": 6}, [letter], [ViewChange("totals", b"k", b"1")])
    await store.save_snapshots([Snapshot(StreamId("Parcel", "a"), 3, 1, b"\x80", MOMENT)])


def in_store(path: Path, work: Callable[[LmdbEventStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with LmdbEventStore(path, EventRegistry([Weighed])) as store:
            return await work(store)

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    in_store(path, fill)
    return path


@pytest.fixture(autouse=True)
def no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNO_ACTORS_STORE", raising=False)


def run(path: Path, *arguments: str, fails: bool = False) -> str:
    """What ``uno-actors store ... `` prints, in this process."""
    result = CliRunner().invoke(cli.app, ["store", arguments[0], "-s", f"lmdb:{path}", *arguments[1:]])
    if not fails and result.exception:
        raise result.exception
    assert result.exit_code == fails, result.output
    return result.output


def started(*arguments: str, check: bool = False) -> Ended:
    """The same with its exit code, and what it writes to either stream."""
    ended = run_command("store", *arguments)
    assert ended.returncode == 0 or not check, ended
    return ended


def positions(output: str) -> list[int]:
    return [json.loads(line)["position"] for line in output.splitlines()]


# --- looking -----------------------------------------------------------------------------------------------


def test_info_shows_the_state_of_the_store(path: Path) -> None:
    shown = run(path, "info")
    assert [line.split() for line in shown.splitlines()[1:4]] == [
        ["events", "6"],
        ["streams", "3"],
        ["snapshots", "1"],
    ]
    assert "mail            2    4        1" in shown
    assert "audit           6    0        0" in shown
    facts = json.loads(run(path, "info", "--json"))
    assert facts["events"] == facts["last_position"] == 6
    assert (facts["format"], facts["checkpoints"], facts["dead_letters"]) == (
        "1",
        {"mail": 2, "audit": 6},
        {"mail": 1},
    )
    assert 0 < facts["map_used"] <= facts["map_size"]
    assert 0 < facts["size"] < 1_000_000


class Totals(Projection[Weighed]):
    def __init__(self) -> None:
        super().__init__(Weighed)

    @override
    async def handle(self, event: Weighed) -> None: ...


def test_info_lists_a_projection_by_its_name(tmp_path: Path) -> None:
    async def project() -> None:
        async with ActorSystem(f"lmdb:{tmp_path}", handlers=[HandlerSpec("totals", Totals)]) as system:
            await system.store.append(weighed("a"))
            await system.settled()

    asyncio.run(project())
    assert json.loads(run(tmp_path, "info", "--json"))["checkpoints"] == {"totals": 1}


def test_info_of_a_database_shows_what_every_store_has(path: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/copy.db"
    started("copy", f"lmdb:{path}", url, check=True)
    facts = json.loads(started("info", "-s", url, "--json", check=True).stdout)
    assert facts == {
        "store": url,
        "last_position": 6,
        "checkpoints": {"mail": 2, "audit": 6},
        "dead_letters": {"mail": 1},
    }
    assert "last position" in started("info", "-s", url, check=True).stdout
    for command in ("verify", "backup copy"):
        name, *arguments = command.split()
        refused = started(name, "-s", url, *arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"a store of the kind sqlite+aiosqlite has no `{name}`: use the tools" in refused.stderr


def test_passwords_are_not_shown() -> None:
    refused = started("info", "-s", "postgres://me:hunter2@there/shop")
    assert refused.returncode == 2
    assert "'postgres://me:***@there/shop'" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--topic", "parcels.*"], [1]),
        (["--topic", "parcels.>"], [1, 3]),
        (["--topic", "nothing", "--topic", "parcels.*"], [1]),
        (["--id", "a"], [1, 3, 6]),
        (["--id", "a", "--type", "Parcel", "--after", "1", "--until", "5"], [3]),
        (["--until", "2"], [1, 2]),
        (["--event", "Other"], [6]),
        (["--event", "Other", "--event", "Weighed", "--after", "3"], [4, 5, 6]),
        (["--type", "Box"], [5]),
        (["--correlation", "c"], [1]),
        (["--limit", "2"], [1, 2]),
        (["--limit", "0"], []),
        (["--type", "Parcel", "--limit", "2", "--after", "1"], [2, 3]),
    ],
)
def test_events_are_listed_and_narrowed(path: Path, arguments: list[str], wanted: list[int]) -> None:
    assert positions(run(path, "events", *arguments, "--json")) == wanted
    rows = run(path, "events", *arguments).splitlines()
    assert [int(row.split()[0]) for row in rows[1:]] == wanted


def test_events_are_shown_without_their_classes(path: Path) -> None:
    _, row, *_, alone = run(path, "events", "--limit", "4").splitlines()
    assert row.split() == ["1", "2024-02-29", "12:30:59", "Weighed", "Parcel<a@1>", "grams=1"]
    assert alone.split() == ["4", "2024-02-29", "12:30:59", "Weighed", "-", "grams=4"]
    line = json.loads(run(path, "events", "--limit", "1", "--json"))
    assert {name: line[name] for name in ("event_type", "aggregate_version", "timestamp", "payload")} == {
        "event_type": "Weighed",
        "aggregate_version": 1,
        "timestamp": "2024-02-29T12:30:59.123456+00:00",
        "payload": {"grams": 1},
    }


def test_a_terminal_gets_rows_of_its_width_and_no_control_characters(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = weighed("漢" * 60 + "\x1b[2J", "long " * 50 + "\n")
    in_store(path, lambda store: store.append(odd))
    assert "漢" * 60 + "\\x1b[2J@1>  grams=" in run(path, "events", "--after", "6")  # whole in a pipe
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    rows = run(path, "events").replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert len(rows) == 8
    assert max(map(cell_len, rows)) == 100
    assert "\x1b" not in "".join(rows)
    assert rows[-1].endswith("…")


def test_stream_lists_one_aggregate_forward_and_backward(path: Path) -> None:
    assert positions(run(path, "stream", "a", "--json")) == [1, 3, 6]
    assert positions(run(path, "stream", "a", "--backward", "--limit", "2", "--json")) == [6, 3]
    assert positions(run(path, "stream", "a", "--after", "1", "--json")) == [3, 6]
    assert positions(run(path, "stream", "a", "--until", "2", "--json")) == [1, 3]
    assert positions(run(path, "stream", "a", "--until", "2", "--backward", "--limit", "1", "--json")) == [3]
    assert positions(run(path, "stream", "b", "--type", "Box", "--json")) == [5]
    for arguments, text in (
        (["b"], "'b' is the id of several streams: add --type, Box or Parcel"),
        (["nobody"], "there is no stream 'nobody' in lmdb:"),
        (["a", "--type", "Nothing"], "there is no stream Nothing<a> in lmdb:"),
    ):
        result = started("stream", "-s", f"lmdb:{path}", *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert text in result.stderr


def test_trace_draws_everything_that_one_message_caused(path: Path) -> None:
    in_store(
        path,
        lambda s: s.append(
            weighed("a", event_id="x", correlation_id="t"), weighed("b", causation_id="x", correlation_id="t")
        ),
    )
    assert run(path, "trace", "t") == "t: 2 events\n└─ 7 Weighed Parcel<a@4>\n   └─ 8 Weighed Parcel<b@2>\n"


# --- what cannot be opened, and how it ends ----------------------------------------------------------------


def test_a_typing_error_creates_no_store(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'typo'}"
    message = f"store {url} is unavailable: there is no store in {tmp_path / 'typo'}"
    for command in ("info", "events", "stream a", "trace c", "verify", "backup b", "export"):
        name, *arguments = command.split()
        result = CliRunner().invoke(cli.app, ["store", name, "-s", url, *arguments])
        assert str(result.exception) == message, command
    result = started("info", "-s", url)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["info"], 2, "UNO_ACTORS_STORE"),
        (["info", "-s", "nothing"], 2, "a store URL is SCHEME:REST"),
        (["info", "-s", "memory:"], 1, "can be seen by its own process only"),
        (["events", "-s", "lmdb:{path}", "--topic", "a..b"], 2, "empty token"),
        (["events", "-s", "lmdb:{path}", "--limit", "-1"], 2, "limit"),
        (["events", "-s", "lmdb:{path}", "--until", "-1"], 2, "until"),
        (["events", "-s", "lmdb:{path}", "--until", "3", "--follow"], 1, "leave one of them out"),
        (["nonsense"], 2, "nonsense"),
        (["restore", "-s", "lmdb:{path}", "{path}"], 1, "nothing is overwritten"),
        (["import", "-s", "lmdb:{path}/new", "{path}/none"], 1, "cannot be read"),
    ],
)
def test_exit_codes_tell_refusals_from_wrong_usage(
    path: Path, arguments: list[str], code: int, text: str
) -> None:
    result = started(*[argument.format(path=path) for argument in arguments])
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_the_store_may_be_named_by_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNO_ACTORS_STORE", f"lmdb:{path}")
    result = started("verify")
    assert (result.returncode, result.stdout) == (0, "whole: 6 events, 3 streams\n")


def test_a_pipe_that_is_closed_early_ends_it_quietly(path: Path) -> None:
    in_store(path, lambda store: store.append(*[weighed("long", "x" * 100) for _ in range(5000)]))
    for arguments in ("events --json", "events", "export"):
        script = f"{COMMAND} store {arguments} -s lmdb:{path} | head -n 2"
        result = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True)
        assert (len(result.stdout.splitlines()), result.stderr) == (2, "")


def test_follow_shows_what_another_process_records_until_it_is_interrupted(path: Path) -> None:
    arguments = [COMMAND, "store", "events", "-s", f"lmdb:{path}", "--follow", "--json", "--type", "Parcel"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout
        assert following.stderr
        assert [json.loads(following.stdout.readline())["position"] for _ in range(4)] == [1, 2, 3, 6]
        in_store(path, lambda store: store.append(weighed("b", of="Box"), weighed("new")))
        assert json.loads(following.stdout.readline())["aggregate_id"] == "new"
        following.send_signal(signal.SIGINT)
        assert following.wait(patience(20)) == 130
        assert following.stderr.read() == ""


# --- verify ------------------------------------------------------------------------------------------------


def u64(number: int) -> bytes:
    return number.to_bytes(8)


def entry(stream: StreamId, version: int) -> bytes:
    return stream_prefix(stream) + u64(version)


A = StreamId("Parcel", "a")


def flip_a_byte(txn: Any, databases: Databases) -> None:
    data = bytearray(txn.get(u64(3), db=databases.log))
    data[len(data) // 2] ^= 1
    txn.put(u64(3), bytes(data), db=databases.log)


def drop_index_entry(txn: Any, databases: Databases) -> None:
    txn.delete(entry(A, 2), db=databases.streams)


def drop_record(txn: Any, databases: Databases) -> None:
    txn.delete(u64(3), db=databases.log)


def drop_last_record(txn: Any, databases: Databases) -> None:
    txn.delete(u64(6), db=databases.log)


def index_what_is_not_there(txn: Any, databases: Databases) -> None:
    txn.put(entry(A, 4), u64(7), db=databases.streams)


def index_anothers_record(txn: Any, databases: Databases) -> None:
    txn.put(entry(StreamId("Parcel", "c"), 1), u64(2), db=databases.streams)


def swap_versions(txn: Any, databases: Databases) -> None:
    txn.put(entry(A, 1), u64(3), db=databases.streams)
    txn.put(entry(A, 2), u64(1), db=databases.streams)


def swap_records(txn: Any, databases: Databases) -> None:
    """Log and index agree with each other: version 2 is recorded before version 1."""
    swap_versions(txn, databases)
    for position, version in ((1, 2), (3, 1)):
        record = to_record(weighed("a"))._replace(aggregate_version=version)
        txn.put(u64(position), sealed(u64(position), pack(record)), db=databases.log)


def skip_a_version(txn: Any, databases: Databases) -> None:
    """Log and index agree with each other: there is no version 2."""
    record = to_record(weighed("a"))._replace(aggregate_version=5)
    txn.put(u64(3), sealed(u64(3), pack(record)), db=databases.log)
    txn.delete(entry(A, 2), db=databases.streams)
    txn.put(entry(A, 5), u64(3), db=databases.streams)


def record_no_payload(txn: Any, databases: Databases) -> None:
    record = to_record(weighed("a"))._replace(aggregate_version=2, payload=b"\xc1")
    txn.put(u64(3), sealed(u64(3), pack(record)), db=databases.log)


def damage(database: str) -> Callable[[Any, Databases], None]:
    def change(txn: Any, databases: Databases) -> None:
        db = getattr(databases, database)
        with txn.cursor(db) as cursor:
            assert cursor.first()
            key, value = cursor.item()
        txn.put(key, value[:-5] + bytes([value[-5] ^ 1]) + value[-4:], db=db)

    return change


FAULTS = [
    (flip_a_byte, 3, "its check sum is wrong"),
    (drop_index_entry, 3, "Parcel<a> version 2 is missing from the index of its stream"),
    (drop_record, 3, "it is missing from the log"),
    (drop_last_record, 6, "an index names it but it is not in the log"),
    (index_what_is_not_there, 7, "an index names it but it is not in the log"),
    (index_anothers_record, 2, "it is that of Parcel<b> version 1"),
    (swap_versions, 1, "Parcel<a> version 1: the index of its stream leads to position 3"),
    (swap_records, 1, "Parcel<a> version 2 is recorded before the version before it, at 3"),
    (skip_a_version, 6, "Parcel<a> version 2 is missing from the index of its stream"),
    (record_no_payload, 3, "payload"),
    (damage("checkpoints"), None, "checkpoint"),
    (damage("dead_letters"), None, "dead letter"),
    (damage("snapshots"), None, "snapshot"),
    (damage("views"), None, "the view totals"),
]


@pytest.mark.parametrize(("change", "position", "text"), FAULTS)
def test_verify_finds_each_kind_of_damage(
    path: Path, change: Callable[[Any, Databases], None], position: int | None, text: str
) -> None:
    assert run(path, "verify") == "whole: 6 events, 3 streams\n"
    with lmdb.open(str(path), max_dbs=len(NAMES)) as env:
        databases = Databases.opened(env)
        with env.begin(write=True) as txn:
            change(txn, databases)
    found = json.loads(run(path, "verify", "--json", fails=True))
    assert (found["whole"], found["position"]) == (False, position)
    assert text in found["reason"]
    if position is not None:
        assert f"position {position}" in found["reason"]
    assert run(path, "verify", fails=True) == f"fault: {found['reason']}\n"


def test_verify_finds_a_damaged_page(path: Path) -> None:
    in_store(path, lambda store: store.append(*[weighed(f"p{n}", "x" * 50) for n in range(2000)]))
    data = path / "data.mdb"
    content = bytearray(data.read_bytes())
    place = content.index(b"p1500\0Parcel")  # a key in a page of the index
    page = place - place % 4096
    content[page : page + 8] = u64(12345)  # its own number
    data.write_bytes(content)
    result = started("verify", "-s", f"lmdb:{path}")
    assert result.returncode == 1
    assert "LMDB's verifier" in result.stdout


def test_a_check_that_is_cancelled_ends_soon(path: Path) -> None:
    steps: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        steps.append(done)
        begun.set()
        go_on.wait(20)

    async def cancel(store: LmdbEventStore) -> None:
        await store.append(*[weighed(f"p{n % 50}", n) for n in range(3000)])
        checking = asyncio.ensure_future(store.verify(progress))
        await asyncio.to_thread(begun.wait, 20)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        go_on.set()

    in_store(path, cancel)  # waits for the threads of its loop
    assert len(steps) == 1


def test_verify_finds_no_fault_while_others_write(path: Path) -> None:
    """The file changes during the check, and there is no fault."""

    async def work() -> Any:
        async with LmdbEventStore(path, EventRegistry([Weighed])) as store:
            await store.append(*[weighed(f"p{n % 50}", n) for n in range(3000)])
            checking = asyncio.ensure_future(store.verify())
            appends = 0
            while not checking.done():
                await store.append(*[weighed(f"p{n}") for n in range(20)])
                appends += 1
            return appends, await checking

    appends, found = asyncio.run(work())
    assert appends > 1
    assert found.streams >= 53
    assert found.events >= 3006


# --- copies ------------------------------------------------------------------------------------------------


def all_of(path: Path) -> Any:
    async def read(store: LmdbEventStore) -> Any:
        log = [stored async for stored in store.read_records()]
        return log, await store.checkpoints(), await store.dead_letters(), await store.read_snapshot(A)

    return in_store(path, read)


def test_a_backup_is_the_whole_store_and_can_be_restored(path: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copies" / "monday", tmp_path / "again"
    run(path, "backup", str(copy))
    in_store(path, lambda store: store.append(weighed("later")))
    run(again, "restore", str(copy))
    assert run(again, "verify") == "whole: 6 events, 3 streams\n"
    log, *rest = all_of(path)
    assert all_of(again) == (log[:-1], *rest)
    assert sorted(entry.name for entry in copy.parent.iterdir()) == ["monday"]


def test_a_backup_leaves_out_free_pages(path: Path, tmp_path: Path) -> None:
    snapshot = Snapshot(A, 3, 1, b"x" * 5_000_000, MOMENT)
    in_store(path, lambda store: store.save_snapshots([snapshot]))
    in_store(path, lambda store: store.drop_snapshots())
    run(path, "backup", str(tmp_path / "copy"))
    assert (
        (path / "data.mdb").stat().st_size > 5_000_000 > 10 * (tmp_path / "copy" / "data.mdb").stat().st_size
    )


def test_a_backup_is_a_consistent_state_while_others_append(path: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with LmdbEventStore(path, EventRegistry([Weighed])) as store:
            await store.append(*[weighed(f"p{n % 50}", n) for n in range(3000)])
            copying = asyncio.ensure_future(store.backup(str(tmp_path / "copy")))
            while not copying.done():
                await store.append(*[weighed(f"p{n}") for n in range(10)])
            await copying

    asyncio.run(work())
    copied, all_there = all_of(tmp_path / "copy")[0], all_of(path)[0]
    assert copied == all_there[: len(copied)]
    assert (len(copied) - 3006) % 10 == 0
    run(tmp_path / "copy", "verify")


def test_nothing_is_overwritten(path: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("dear")
    file = tmp_path / "file"
    file.write_text("x")
    for target in (taken, file, path):
        result = started("backup", "-s", f"lmdb:{path}", str(target))
        assert (result.returncode, "nothing is overwritten" in result.stderr) == (1, True)
    result = started("export", "-s", f"lmdb:{path}", str(file))
    assert (result.returncode, "nothing is overwritten" in result.stderr) == (1, True)
    assert (file.read_text(), (taken / "letter.txt").read_text()) == ("x", "dear")
    assert len(all_of(path)[0]) == 6


# --- JSON lines --------------------------------------------------------------------------------------------


def test_an_import_restores_every_exported_event(path: Path, tmp_path: Path) -> None:
    odd = [b"\x00\xff", MOMENT, {1: "one"}, float("inf"), 1.5, 2**63, "é\u2028\n", [None, {"$bytes": "x"}]]
    in_store(path, lambda store: store.append(*[weighed("odd", value) for value in odd]))
    lines, new = tmp_path / "events.jsonl", tmp_path / "new"
    assert run(path, "export", str(lines)) == f"14 events exported to {lines}\n"
    assert run(new, "import", str(lines)) == "14 events imported\n"
    assert all_of(new)[0] == all_of(path)[0]
    assert run(new, "verify") == "whole: 14 events, 4 streams\n"
    script = f"{COMMAND} store export -s lmdb:{path} | {COMMAND} store import -s lmdb:{tmp_path}/piped"
    subprocess.run(["/bin/bash", "-o", "pipefail", "-c", script], check=True)
    assert all_of(tmp_path / "piped")[0] == all_of(path)[0]


def test_an_interrupted_import_is_refused_or_resumed(path: Path, tmp_path: Path) -> None:
    in_store(path, lambda store: store.append(*[weighed("many", n) for n in range(2500)]))
    whole, cut, new = tmp_path / "whole", tmp_path / "cut", tmp_path / "new"
    run(path, "export", str(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:1500]))
    result = started("import", "-s", f"lmdb:{new}", str(cut))
    assert (
        result.returncode,
        "line 1501 is not an exported event: the export was cut off" in result.stderr,
    ) == (
        1,
        True,
    )
    assert len(all_of(new)[0]) == 1000
    result = started("import", "-s", f"lmdb:{new}", str(whole))
    assert (result.returncode, "has events: import into a new store, or add --resume" in result.stderr) == (
        1,
        True,
    )
    assert run(new, "import", str(whole), "--resume") == "1,506 events imported, 1,000 were there already\n"
    assert all_of(new)[0] == all_of(path)[0]
    in_store(new, lambda store: store.append(weighed("another")))
    result = started("import", "-s", f"lmdb:{new}", str(whole), "--resume")
    assert (result.returncode, "has another event at position 2507" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "line 1 is not an exported event: the export was cut off"),
        (b"\xff\n", "line 1 is not an exported event"),
        (b'{"a": 1}\n', "an export begins with"),
        (b'{"uno_actors": "events", "format": 1}\nnonsense\n', "line 2 is not an exported event"),
        (b'{"uno_actors": "events", "format": 1}\n{"position": 1}\n', "line 2 is not an exported event"),
        (
            b'{"uno_actors": "events", "format": 1}\n{"uno_actors": "end", "events": 1}\n',
            "0 events came before it",
        ),
    ],
)
def test_a_file_that_is_not_an_export_is_refused_and_makes_no_store(
    tmp_path: Path, content: bytes, text: str
) -> None:
    (tmp_path / "lines").write_bytes(content)
    result = started("import", "-s", f"lmdb:{tmp_path}/new", str(tmp_path / "lines"))
    assert (result.returncode, result.stdout) == (1, "")
    assert text in result.stderr
    assert not (tmp_path / "new").exists()


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(0, 9), inner)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES).map(msgpack.packb)
    | st.binary(),
    st.datetimes(timezones=st.just(UTC)),
    TEXTS,
    st.none() | st.binary(),
)
def test_every_record_comes_back_from_its_line(
    payload: bytes, when: datetime, text: str | None, reply: bytes | None
) -> None:
    record = to_record(weighed("a"))._replace(
        payload=payload,
        timestamp=when,
        aggregate_id=None if text is None else f"a{text}".replace("\0", "")[:60],
        topic=text,
        reply=reply,
        aggregate_version=2**40,
    )
    line = to_line(StoredRecord(7, record))
    assert "\n" not in line
    assert from_line(line, 1) == record
    assert set(json.loads(line)) == {"position", *Record._fields}


def test_a_line_with_a_field_of_another_type_is_refused() -> None:
    fields = json.loads(to_line(StoredRecord(1, to_record(weighed("a")))))
    for wrong in (
        {"version": "1"},
        {"timestamp": 5},
        {"reply": "no base64!"},
        {"payload": []},
        {"event_id": None},
        {"aggregate_id": "a\0b"},
        {"aggregate_id": "x" * 256},
    ):
        with pytest.raises(UnreadableLine, match="line 9"):
            from_line(json.dumps(fields | wrong), 9)


# --- the output and the input as files ---------------------------------------------------------------------


def test_a_dash_stands_for_standard_output_and_standard_input(path: Path, tmp_path: Path) -> None:
    script = f"{COMMAND} store export - -s lmdb:{path} | {COMMAND} store import - -s lmdb:{tmp_path}/piped"
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["/bin/bash", "-o", "pipefail", "-c", script], check=True, cwd=work)
    assert all_of(tmp_path / "piped")[0] == all_of(path)[0]
    assert list(work.iterdir()) == []


def test_export_and_import_use_pipes_and_devices(path: Path, tmp_path: Path) -> None:
    script = (
        f"{COMMAND} store export >(cat > {tmp_path}/copied; touch {tmp_path}/done) -s lmdb:{path}"
        f" && {COMMAND} store export /dev/null -s lmdb:{path}"
        f" && {COMMAND} store import <({COMMAND} store export -s lmdb:{path}) -s lmdb:{tmp_path}/piped"
        f"; code=$?; while [ ! -e {tmp_path}/done ]; do sleep 0.01; done; exit $code"
    )
    subprocess.run(["/bin/bash", "-c", script], check=True, timeout=60)
    assert all_of(tmp_path / "piped")[0] == all_of(path)[0]
    run(tmp_path / "new", "import", str(tmp_path / "copied"))
    assert all_of(tmp_path / "new")[0] == all_of(path)[0]


def test_an_export_ends_quietly_when_its_reader_has_gone(path: Path) -> None:
    in_store(path, lambda store: store.append(*[weighed("long", "x" * 100) for _ in range(5000)]))
    script = f"{COMMAND} store export - -s lmdb:{path} | head -n 2"
    result = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True)
    assert (len(result.stdout.splitlines()), result.stderr) == (2, "")


@pytest.mark.parametrize("file", ["/dev/zero", "{path}"])
def test_an_import_of_a_file_that_is_not_an_export_ends_at_once(
    path: Path, tmp_path: Path, file: str
) -> None:
    url = f"lmdb:{tmp_path}/new"
    result = CliRunner().invoke(cli.app, ["store", "import", "-s", url, file.format(path=path)])
    assert isinstance(result.exception, CallerError)
    assert not (tmp_path / "new").exists()


def test_a_copy_names_the_event_that_its_target_refuses(path: Path, tmp_path: Path) -> None:
    in_store(path, lambda store: store.append(*[weighed("n", n) for n in range(50)]))
    in_store(path, lambda store: store.append(weighed("large", "x" * 5000), weighed("later")))
    url = f"lmdb:{tmp_path}/copy?max_event_size=2000"
    result = CliRunner().invoke(cli.app, ["store", "copy", f"lmdb:{path}", url])
    assert "the source's event at position 57, Weighed of Parcel<large> version 1: " in str(result.exception)
    assert len(all_of(tmp_path / "copy")[0]) == 56  # and the copy can resume where the rest fits


# --- the store of a configuration file ---------------------------------------------------------------------


def test_the_store_may_be_named_by_a_configuration_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "bank.toml"
    file.write_text('[system]\nstore = "lmdb:./store"\n[[handlers]]\nhandler = "nowhere:nothing"\n')
    for group, command in (("store", "verify"), ("handlers", "list"), ("deadletters", "list")):
        arguments = [group, command, "--config", str(file), *["--json"] * (group != "store")]
        from_file = CliRunner().invoke(
            cli.app, arguments, env={"UNO_ACTORS_STORE": "lmdb:/another"}, catch_exceptions=False
        )
        arguments[2:4] = ["--store", f"lmdb:{path}"]
        assert from_file.output == CliRunner().invoke(cli.app, arguments).output != ""
    for options, code, text in (
        (["-c", str(file), "-s", f"lmdb:{path}"], 2, "exclude each other"),
        (["-c", str(tmp_path / "none.toml")], 2, "cannot be read"),
    ):
        result = started("info", *options)
        assert (result.returncode, result.stdout) == (code, "")
        assert text in " ".join(result.stderr.replace("│", " ").split())
    file.write_text('[system]\nstore = "lmbd:./store"\n')
    result = started("info", "-c", str(file))
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, f"error: {file} has 1 fault:")
    assert result.stderr.splitlines()[1].startswith(f"{file}:2: system.store: found ")


def commands(group: Any) -> list[tuple[str, Any]]:
    return [
        (name, command)
        for name, command in group.commands.items()
        if {"-s", "-c"} <= {option for given in command.params for option in given.opts}
    ]


def test_every_command_on_a_store_takes_the_store_in_the_same_way() -> None:
    groups = get_command(cli.app).commands
    without = [
        f"{group} {name}"
        for group in ("store", "handlers", "deadletters")
        for name in groups[group].commands.keys() - dict(commands(groups[group])).keys()
    ]
    # The first takes two stores, as its arguments; the second needs the classes of a program.
    assert sorted(without) == ["store copy", "store state"]
