"""What the logs of real programs show: those that configure nothing, and those that configure logging or structlog."""

import gc
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from uno_actors import Actor, ActorSystem
from uno_actors.logs import Logger, LogLimit, get_logger

DEAD_LETTER = """
class Shipped(DomainEvent):
    topic: str = "shop.shipped"

@subscribe(topic_pattern="shop.*", name="mail", max_attempts=1)
async def mail(event: DomainEvent) -> None:
    raise ValueError("no \\x1b[31m such \\nFORGED address")

async def serve() -> None:
    async with ActorSystem("memory:", name="shop") as system:
        await system.store.append(Shipped(correlation_id="order-7"))
        await system.settled()
"""
"""A program whose one event becomes a dead letter."""

IMPORTS = "import asyncio\nfrom uno_actors import ActorSystem, DomainEvent, subscribe\n"
RUN = "\nasyncio.run(serve())\n"

TO_STDOUT = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(uno_system)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "mine"}},
    "loggers": {"uno_actors": {"handlers": ["out"], "level": "ERROR", "propagate": False}},
})
"""
BASIC = "\nimport logging, sys\nlogging.basicConfig(stream=sys.stdout, level='ERROR', format='MINE %(message)s')\n"
STRUCTLOG = """
import structlog
structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory())
"""
LATE = STRUCTLOG.replace("\n", "\n" + 8 * " ") + "\n"
"""The same inside of a function of the program."""


def run(program: str) -> tuple[str, str]:
    """What a program prints, and what it writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_program_that_configures_nothing_sees_its_dead_letters() -> None:
    out, err = run(IMPORTS + DEAD_LETTER + RUN)
    assert out == ""
    (line,) = [line for line in err.splitlines() if "event set aside" in line]
    assert " ERROR uno_actors: event set aside system=shop node=shop@" in line
    assert "actor=mail handler=mail" in line
    assert "correlation_id=order-7" in line


def test_no_error_text_forges_a_line_or_controls_the_terminal() -> None:
    _, err = run(IMPORTS + DEAD_LETTER + RUN)
    assert all(map(str.isprintable, err.splitlines()))
    assert not any(line.startswith("FORGED") for line in err.splitlines())
    assert r"no \x1b[31m such \nFORGED address" in err


def test_what_is_less_than_a_warning_stays_quiet() -> None:
    program = "from uno_actors.logs import get_logger; get_logger().info('system started')"
    assert run(program) == ("", "")


@pytest.mark.parametrize(
    "program",
    [
        BASIC + IMPORTS + DEAD_LETTER + RUN,
        IMPORTS + BASIC + DEAD_LETTER + RUN,
        TO_STDOUT + IMPORTS + DEAD_LETTER + RUN,
        IMPORTS + TO_STDOUT + DEAD_LETTER + RUN,
    ],
    ids=["basicConfig before", "basicConfig after", "dictConfig before", "dictConfig after"],
)
def test_a_program_that_configures_logging_keeps_what_it_has_configured(program: str) -> None:
    out, err = run(program)
    assert err == ""
    lines = [line for line in out.splitlines() if "event set aside" in line]
    assert len(lines) == 1
    assert lines[0].startswith("MINE ")


@pytest.mark.parametrize(
    "program",
    [
        STRUCTLOG + IMPORTS + DEAD_LETTER + RUN,
        IMPORTS + STRUCTLOG + DEAD_LETTER + RUN,
        IMPORTS
        + DEAD_LETTER.replace("        await system.store", f"{LATE}        await system.store")
        + RUN,
    ],
    ids=["before the import", "after it", "while the system runs"],
)
def test_a_program_that_configures_structlog_gets_every_line_there(program: str) -> None:
    out, err = run(program)
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    assert all({"system", "node", "actor"} <= line.keys() for line in lines)
    (letter,) = [line for line in lines if line["event"] == "event set aside"]
    assert (letter["system"], letter["actor"], letter["correlation_id"]) == ("shop", "mail", "order-7")
    assert letter["node"].startswith("shop@")


@pytest.mark.parametrize(
    "silence",
    [
        "import logging; logging.getLogger('uno_actors').addHandler(logging.NullHandler())",
        "import logging; logging.getLogger().addHandler(logging.NullHandler())",
        "import logging; logging.lastResort = None",
        "import logging; logging.getLogger('uno_actors').setLevel('CRITICAL')",
        "import logging; logging.getLogger('uno_actors').disabled = True",
        "import sys; sys.stderr = None",
    ],
)
def test_every_usual_way_to_silence_a_library_does(silence: str) -> None:
    assert run(f"{IMPORTS}{silence}\n{DEAD_LETTER}{RUN}") == ("", "")


def test_a_last_resort_of_the_program_gets_the_lines() -> None:
    own = "import logging, sys\nlogging.lastResort = logging.StreamHandler(sys.stdout)\n"
    out, err = run(IMPORTS + own + DEAD_LETTER + RUN)
    assert (out.count("event set aside"), err) == (1, "")


def test_a_dead_letter_shows_under_uvicorn() -> None:
    pytest.importorskip("uvicorn")
    program = """
import contextlib, uvicorn
@contextlib.asynccontextmanager
async def nothing():
    yield

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await serve()
    server.should_exit = True
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

server = uvicorn.Server(uvicorn.Config(app, port=0))
server.run()
"""
    out, err = run(IMPORTS + DEAD_LETTER + program)
    assert out == ""
    assert "Application startup complete" in err  # uvicorn's own logs
    assert err.count("uno_actors: event set aside system=shop") == 1


def test_pytest_shows_the_lines_of_a_failed_test_once(tmp_path: Path) -> None:
    test = tmp_path / "test_shop.py"
    test.write_text(f"{IMPORTS}{DEAD_LETTER}\ndef test_it():\n    asyncio.run(serve())\n    assert False\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.count("event set aside system=shop") == 1
    assert "Captured log call" in done.stdout
    assert "Captured stderr" not in done.stdout


def test_a_failed_ask_that_nothing_looks_at_is_logged_in_a_plain_program() -> None:
    program = """
from uno_actors import AggregateRoot, Command, CommandRejected, handles
class Pay(Command[int]):
    pass
class Till(AggregateRoot):
    @handles
    def pay(self, command: Pay) -> int:
        raise CommandRejected("the till is closed")
async def serve() -> None:
    async with ActorSystem("memory:", name="shop", handlers=[]) as system:
        system.aggregate(Till, "one").ask(Pay(correlation_id="order-7"))
        await system.settled()
asyncio.run(serve())
"""
    out, err = run(IMPORTS + program)
    assert out == ""
    first, *_, last = err.splitlines()
    assert (
        "ERROR uno_actors: an ask failed, and nothing has looked at its reply system=shop node=shop@" in first
    )
    assert "message=Pay" in first
    assert "correlation_id=order-7" in first
    assert last.endswith("CommandRejected: the till is closed")


# --- in this process ---------------------------------------------------------------------------------------


@pytest.fixture
def unseen(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    structlog.reset_defaults()
    with caplog.at_level(logging.ERROR, logger="uno_actors"):
        yield caplog


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    gc.collect()
    return [record.getMessage() for record in caplog.records if "nothing has looked" in record.getMessage()]


class Grumpy(Actor):
    async def on_receive(self, message: object) -> object:
        if message == "fail":
            raise ValueError("no")
        return message


async def test_whatever_looks_at_a_failed_ask_keeps_it_out_of_the_log(
    unseen: pytest.LogCaptureFixture,
) -> None:
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Grumpy, name="grumpy")
        with pytest.raises(ValueError, match="no"):
            await ref.ask("fail")
        later = ref.ask("fail")
        await ref.ask("well")
        with pytest.raises(ValueError, match="no"):
            await later
        watched, called = ref.ask("fail"), list[object]()
        watched.add_done_callback(called.append)
        await ref.ask("well")
        assert called == [watched]
        late = ref.ask("fail")
        await ref.ask("well")
        late.add_done_callback(called.append)
        joined = ref.ask("fail").join(ref.ask("well"))
        with pytest.raises(ValueError, match="no"):
            await joined
        del later, watched, late, joined
        called.clear()
        ref.ask("well")
    assert messages(unseen) == []


async def test_a_failed_ask_of_an_actor_is_logged_when_it_is_dropped(
    unseen: pytest.LogCaptureFixture,
) -> None:
    async with ActorSystem(handlers=[], name="shop") as system:
        ref = await system.spawn(Grumpy, name="grumpy")
        kept = ref.ask("fail")
        await ref.ask("well")
        assert messages(unseen) == []
        del kept
        (line,) = messages(unseen)
        assert "system=shop" in line
        assert "actor=Grumpy 'grumpy'" in line


def test_a_flood_of_unseen_errors_is_counted_instead_of_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr("uno_actors.logs.monotonic", lambda: now[0])
    limit = LogLimit(3)
    assert [limit.take() for _ in range(5)] == [{}, {}, {}, None, None]
    now[0] = 6.1
    assert [limit.take() for _ in range(2)] == [{"others_not_logged": 2}, {}]


def test_a_bound_logger_adds_to_the_names_of_the_one_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    structlog.reset_defaults()
    log: Logger = get_logger(system="shop", node="shop@1").bind(actor="router")
    log.warning("slow")
    assert caplog.messages == ["slow system=shop node=shop@1 actor=router"]
