"""Handlers whose names do not survive a move: which names they get, and which warnings are given."""

import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.bank import Credited, credited
from uno_actors import (
    ActorSystem,
    Checkpoint,
    EventHandler,
    HandlerControl,
    HandlerNameWarning,
    Projection,
    open_store,
    subscribe,
)
from uno_actors.handlers.moves import checkpoint_of
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import DefaultName, gather

APP = """
import asyncio, sys
from tests.bank import Credited
from uno_actors import ActorSystem, subscribe

@subscribe(event_type=Credited)
async def mail(event):
    print("mail", event.amount, flush=True)

async def main():
    async with ActorSystem(sys.argv[1]) as system:
        for amount in sys.argv[2:]:
            await system.publisher.publish(Credited(amount=int(amount)))
        await system.settled()

if __name__ == "__main__":
    asyncio.run(main())
"""
ROOT = Path(__file__).parent.parent


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lmdb:{tmp_path}/store"


async def nothing(event: Credited) -> None: ...


def unnamed(function: Any = nothing, **options: Any) -> HandlerSpec:
    copy = types.FunctionType(function.__code__, dict(function.__globals__), function.__name__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    copy.__annotations__ = function.__annotations__
    (spec,) = gather([subscribe(**options)(copy)])
    return spec


async def warned(url: str, *handlers: object) -> list[str]:
    """The warnings when a system with ``handlers`` starts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with ActorSystem(url, aggregates=[], handlers=handlers):
            pass
    assert all(each.category is HandlerNameWarning for each in caught)
    assert all(Path(each.filename) == Path(__file__) for each in caught)
    return [str(each.message) for each in caught]


# --- the name of a program that is run ---


def run(tmp_path: Path, *arguments: str) -> list[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_handler_resumes_where_it_was_however_its_module_is_run(tmp_path: Path, url: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    ways = [
        [str(tmp_path / "app.py")],
        ["-m", "app"],
        ["-c", "import sys, asyncio, app; sys.argv[0] = 'x'; asyncio.run(app.main())"],
        ["-c", "import runpy; runpy.run_module('app', run_name='__main__', alter_sys=True)"],
    ]
    for number, way in enumerate(ways, start=1):
        assert run(tmp_path, *way, url, str(number)) == [f"mail {number}"]
    known = (
        "import asyncio, sys; from uno_actors import open_store\n"
        "async def main():\n"
        "    async with open_store(sys.argv[1]) as store: print(sorted(await store.checkpoints()))\n"
        "asyncio.run(main())"
    )
    assert run(tmp_path, "-c", known, url) == ["['app.mail']"]


@pytest.mark.parametrize(
    ("spec", "file", "name"),
    [
        (types.SimpleNamespace(name="shop.mail"), "/x/shop/mail.py", "shop.mail.nothing"),
        (types.SimpleNamespace(name="shop.__main__"), "/x/shop/__main__.py", "shop.__main__.nothing"),
        (None, "/x/app.py", "app.nothing"),
        (None, "/x/my-app.py", "__main__.nothing"),  # which cannot be imported
        (None, None, "__main__.nothing"),  # typed in
    ],
)
def test_a_module_that_is_run_is_called_as_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, spec: Any, file: str | None, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__spec__=spec, __file__=file))
    for module in ("__main__", "__mp_main__"):
        handler = types.FunctionType(nothing.__code__, {}, "nothing")
        handler.__module__ = module
        (found,) = gather([subscribe(event_type=Credited)(handler)])
        assert found.name == name


async def test_a_handler_resumes_at_a_checkpoint_saved_under_main(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """An earlier version used the name ``__main__`` for a module that was run as a program."""
    async with open_store(url) as store:
        await store.append(*credited(1, 2, 3))
        await store.save_progress({"__main__.nothing": 1})
    seen: list[int] = []
    spec = unnamed()

    async def see(event: Credited) -> None:
        seen.append(event.amount)

    see.__qualname__ = "nothing"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with ActorSystem(url, aggregates=[], handlers=[subscribe(event_type=Credited)(see)]) as system:
            await system.settled()
            assert (await system.store.checkpoints())[spec.name] == 1 or seen
    assert seen == [2, 3]


@pytest.mark.parametrize(
    ("name", "checkpoints", "others", "position"),
    [
        (DefaultName("app.nothing"), {"app.nothing": 5, "__main__.nothing": 3}, [], 5),
        (DefaultName("app.nothing"), {"__main__.nothing": 3}, [], 3),
        (DefaultName("app.nothing"), {"__main__.nothing": 3}, ["__main__.nothing"], None),
        (DefaultName("app.nothing"), {"__main__.other": 3}, [], None),
        ("nothing", {"__main__.nothing": 3}, [], None),  # it was named: what has another name is another
    ],
)
def test_the_checkpoint_of_a_handler_is(
    name: str, checkpoints: dict[str, int], others: list[str], position: int | None
) -> None:
    assert checkpoint_of(HandlerSpec(name, nothing), checkpoints, others) == position


# --- warnings ---


async def test_for_a_handler_named_after_its_code_the_line_to_write_is_logged(url: str) -> None:
    (text,) = await warned(url, unnamed(event_type=Credited))
    assert '@subscribe(name="nothing", ...)' in text
    (text,) = await warned(url, unnamed(event_type=Credited))
    # Under which it has a checkpoint by now.
    assert f'@subscribe(name="{nothing.__module__}.nothing", ...)' in text


async def test_for_handlers_that_need_no_name_nothing_is_logged(url: str) -> None:
    class Sum(Projection[Credited]):
        async def handle(self, event: Credited) -> None: ...

    class Audit(EventHandler[Credited]):
        async def handle(self, event: Credited) -> None: ...

    assert await warned("memory:", unnamed()) == []
    assert await warned("sqlite+aiosqlite://", unnamed()) == []
    assert await warned(url, Sum, unnamed(name="mail"), subscribe(name="audit")(Audit)) == []


async def test_a_handler_that_begins_at_the_end_beside_an_unused_checkpoint_is_reported(url: str) -> None:
    assert await warned(url, unnamed(name="orders.mail"), unnamed(name="audit")) == []
    async with open_store(url) as store:
        await store.append(*credited(1, 2))
    (text,) = await warned(url, unnamed(name="post.mail"), unnamed(name="audit"))
    assert "'post.mail' is new and begins at the end of the log, after position 2" in text
    assert "'orders.mail' (at 0)" in text
    assert '@subscribe(name="orders.mail", ...)' in text
    assert await warned(url, unnamed(name="post.mail"), unnamed(name="audit")) == []  # it is known now


async def test_the_checkpoint_of_a_consumer_that_is_no_handler_is_not_reported(url: str) -> None:
    """It moves with events, or alone; no handler of the system uses it, and none has to."""
    async with open_store(url) as store:
        await store.append(*credited(1, 2), checkpoint=Checkpoint("intake", 7))
        await store.append(checkpoint=Checkpoint("shop follows stock", 2))
    assert await warned(url, unnamed(name="mail")) == []
    async with open_store(url) as store:
        await store.append(*credited(3))
    (text,) = await warned(url, unnamed(name="post"))
    assert "'mail' (at 2)" in text
    assert "intake" not in text


async def test_a_handler_that_was_renamed_and_has_not_run_since_is_reported_by_its_new_name(url: str) -> None:
    await warned(url, unnamed(name="mail"))
    async with open_store(url) as store:
        await store.append(*credited(1))
        await HandlerControl(store).rename("mail", "letters")
    (text,) = await warned(url, unnamed(name="post"))
    assert "'letters' (at 0)" in text


@pytest.mark.parametrize("options", [{"start": "earliest"}, {"start": 1}])
async def test_for_a_new_handler_with_an_explicit_start_nothing_is_logged(
    url: str, options: dict[str, Any]
) -> None:
    await warned(url, unnamed(name="mail"))
    async with open_store(url) as store:
        await store.append(*credited(1, 2))
    assert await warned(url, unnamed(name="post", **options)) == []


async def test_a_handler_that_is_added_later_is_reported_too(url: str) -> None:
    await warned(url, unnamed(name="mail"))
    async with open_store(url) as store:
        await store.append(*credited(1, 2))
    async with ActorSystem(url, aggregates=[], handlers=[]) as system:
        with pytest.warns(HandlerNameWarning, match="'mail' \\(at 0\\)"):
            await system.supervisor("handlers").start_child(unnamed(name="post"))


async def test_a_checkpoint_whose_handler_another_process_runs_is_not_unused(url: str) -> None:
    async with open_store(url) as store:

        async def warned_beside(*handlers: object) -> list[str]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                async with ActorSystem(store, aggregates=[], handlers=handlers):
                    pass
            return [str(each.message) for each in caught]

        async with ActorSystem(store, aggregates=[], handlers=[unnamed(name="elsewhere")]) as other:
            await other.publisher.publish(Credited(amount=1))
            await other.settled()
            assert await warned_beside(unnamed(name="mail")) == []
        await HandlerControl(store).forget("mail")
        (text,) = await warned_beside(unnamed(name="mail"))
    assert "the checkpoint of 'elsewhere' (at 1)" in text
    assert "`uno-actors handlers rename elsewhere mail`" in text
    assert "`uno-actors handlers forget elsewhere`" in text


async def test_of_many_unused_checkpoints_the_likeliest_is_reported_first(url: str) -> None:
    await warned(url, *[unnamed(name=f"old.{name}") for name in ("audit", "sum", "mails", "x", "y", "z")])
    async with open_store(url) as store:
        await store.append(*credited(1))
    (text,) = await warned(url, unnamed(name="new.mail"))
    assert "the checkpoint of 'old.mails' (at 0), 'old.audit' (at 0)" in text
    assert "and 1 more" in text
