"""What the plugin finds in tests: what they leave behind, and calls that block the event loop."""

import sys
from importlib import import_module

import pytest

for name in (
    "_public",
    "testing.blocking",
    "testing.leftovers",
    "testing.simulated_tests",
    "testing._public",
):
    import_module(f"uno_actors.{name}")  # a run inside of a test forgets what it imports itself
for name in ("lmdb", "sql"):
    import_module(f"uno_stores.{name}")

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.uno_actors_leaks(False)  # the runs inside of these tests have leaks on purpose

INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
LEAKS = INI + "uno_actors_leaks = true\n"
BLOCKING = INI + "uno_actors_blocking = true\n"


def run(pytester: pytest.Pytester, source: str, *options: str, ini: str = LEAKS) -> pytest.RunResult:
    pytester.makeini(ini)
    pytester.makepyfile(test_it=source)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)  # there pytest repeats whole texts in its summary
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *options)


# --- leaks -------------------------------------------------------------------------------------------------

LEFT = {
    "a task of the test's loop": (
        """
        async def poll():
            await asyncio.sleep(60)

        async def test_it():
            asyncio.create_task(poll(), name="poller")
        """,
        "task 'poller' of poll(): started at *test_it.py:11 in test_it; to end it: await it, or task.cancel()*",
    ),
    "a task that asyncio.run cancels": (
        """
        def test_it():
            async def main():
                asyncio.ensure_future(asyncio.sleep(60))
            asyncio.run(main())
        """,
        "task 'Task-*' of sleep(): started at *test_it.py:9 in main; *",
    ),
    "a thread": (
        """
        def test_it():
            threading.Thread(target=threading.Event().wait, args=[60], name="waiter", daemon=True).start()
        """,
        "thread 'waiter': started at *test_it.py:8 in test_it; *thread.join()",
    ),
    "a system": (
        """
        async def test_it():
            await ActorSystem("memory:", name="bank", handlers=[]).start()
        """,
        "system 'bank', which runs: started at *test_it.py:8 in test_it; to end it: await system.stop(), *",
    ),
    "a system on a thread of its own": (
        """
        SYSTEMS = []
        def test_it():
            SYSTEMS.append(ActorSystem("memory:", name="bank", handlers=[]).start_sync())

        @pytest.mark.uno_actors_leaks(False)
        def test_end():
            SYSTEMS.pop().stop_sync()
        """,
        "system 'bank', which runs: started at *test_it.py:9 in test_it; to end it: system.stop_sync(), *",
    ),
    "a store in LMDB": (
        """
        STORES = []
        async def test_it(tmp_path):
            STORES.append(open_store(f"lmdb:{tmp_path}"))

        @pytest.mark.uno_actors_leaks(False)
        async def test_end():
            await STORES.pop().close()
        """,
        "store lmdb:/*: started at *test_it.py:9 in test_it; to end it: await store.close()",
    ),
    "a store in a database": (
        """
        STORES = []
        async def test_it(tmp_path):
            STORES.append(open_store(f"sqlite+aiosqlite:///{tmp_path}/s.db"))

        @pytest.mark.uno_actors_leaks(False)
        async def test_end():
            await STORES.pop().close()
        """,
        "store sqlite+aiosqlite:///*: started at *test_it.py:9 in test_it; to end it: await store.close()",
    ),
    "a pool of threads": (
        """
        from concurrent.futures import ThreadPoolExecutor
        POOLS = []
        def test_it():
            POOLS.append(ThreadPoolExecutor(1))
            assert POOLS[0].submit(abs, -1).result() == 1

        @pytest.mark.uno_actors_leaks(False)
        def test_end():
            POOLS.pop().shutdown()
        """,
        "thread 'ThreadPoolExecutor-*': started at *test_it.py:11 in test_it; to end it: pool.shutdown(), *",
    ),
    "what a fixture of the test starts": (
        """
        @pytest.fixture
        async def poller():
            return asyncio.create_task(asyncio.sleep(60))

        async def test_it(poller): ...
        """,
        "task 'Task-*' of sleep(): started at *test_it.py:9 in poller; *",
    ),
}

HEAD = """
import asyncio
import threading
import pytest
from uno_actors import ActorSystem
from uno_actors.store.opening import open_store
"""


def written(source: str) -> str:
    lines = source.rstrip().splitlines()
    return HEAD + "\n".join(line[8:] for line in lines) + "\n"


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_is_named_with_its_line_and_what_to_call(pytester: pytest.Pytester, kind: str) -> None:
    source, text = LEFT[kind]
    result = run(pytester, written(source))
    assert result.parseoutcomes().get("errors", result.parseoutcomes().get("error")) == 1
    result.stdout.fnmatch_lines(["*the test leaves something behind:", f"*  - {text}"])
    assert str(result.stdout).count("  - ") == 1


TIDY = {
    "a system that is stopped": """
        async def test_it(tmp_path):
            async with ActorSystem(f"lmdb:{tmp_path}", handlers=[]) as system:
                await system.settled()
            with ActorSystem(f"sqlite+aiosqlite:///{tmp_path}/s.db", handlers=[]): ...
        """,
    "a task that ends, and one that is cancelled": """
        async def test_it():
            await asyncio.create_task(asyncio.sleep(0))
            asyncio.create_task(asyncio.sleep(60)).cancel()
        """,
    "threads of the loop and of a pool": """
        from concurrent.futures import ThreadPoolExecutor
        async def test_it():
            await asyncio.to_thread(lambda: None)
            with ThreadPoolExecutor() as pool:
                pool.submit(lambda: None).result()
        """,
    "a thread that is about to end": """
        import time
        def test_it():
            threading.Thread(target=time.sleep, args=[0.1]).start()
        """,
    "what a fixture of many tests starts": """
        @pytest.fixture(scope="module")
        def server():
            over = threading.Event()
            thread = threading.Thread(target=over.wait, args=[10])
            thread.start()
            yield
            over.set()
            thread.join()
        def test_it(server): ...
        def test_other(server): ...
        """,
    "what a fixture starts and ends": """
        @pytest.fixture
        async def poller():
            task = asyncio.create_task(asyncio.sleep(60))
            yield
            task.cancel()
        async def test_it(poller): ...
        """,
    "the threads of a pool that all tests of a module share": """
        from concurrent.futures import ThreadPoolExecutor
        @pytest.fixture(scope="module")
        def pool():
            with ThreadPoolExecutor(2) as pool:
                yield pool
        def test_it(pool):
            assert pool.submit(abs, -1).result() == 1
        def test_again(pool):
            assert [*pool.map(abs, [-1, -2, -3])] == [1, 2, 3]
        """,
    "a simulation with crashes": """
        async def scenario(world):
            await world.node("a", lambda node: ActorSystem(node.store, handlers=[]))
            world.crash("a")
        def test_it(simulated):
            simulated(scenario, 2)
        """,
    "tests of anyio": """
        import anyio
        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param
        @pytest.mark.anyio
        async def test_it(anyio_backend):
            await anyio.to_thread.run_sync(lambda: None)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)
        """,
}


@pytest.mark.parametrize("kind", TIDY)
def test_what_ends_is_not_left_over(pytester: pytest.Pytester, kind: str) -> None:
    ini = LEAKS.replace("auto", "strict") if "anyio" in kind else LEAKS
    result = run(pytester, written(TIDY[kind]), "-W", "error", ini=ini)
    assert set(result.parseoutcomes()) == {"passed"}


def test_the_check_is_off_unless_it_is_asked_for_and_a_marker_decides_for_one_test(
    pytester: pytest.Pytester,
) -> None:
    source = """
        import asyncio
        import pytest

        async def test_off():
            asyncio.create_task(asyncio.sleep(60))

        @pytest.mark.uno_actors_leaks
        async def test_on():
            asyncio.create_task(asyncio.sleep(60))

        @pytest.mark.uno_actors_leaks(on=False)
        async def test_never():
            asyncio.create_task(asyncio.sleep(60))
        """
    run(pytester, source, ini=INI).assert_outcomes(passed=3, errors=1)
    run(pytester, source, ini=LEAKS).assert_outcomes(passed=3, errors=2)


@pytest.mark.parametrize(
    ("given", "found"),
    [('"False"', "'False'"), ("off=True", "off=True"), ("False, on=True", "False, on=True")],
)
def test_a_marker_with_a_mistake_is_explained(pytester: pytest.Pytester, given: str, found: str) -> None:
    source = f"""
        import pytest

        @pytest.mark.uno_actors_leaks({given})
        def test_it(): ...
        """
    result = run(pytester, source, ini=INI)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*the marker uno_actors_leaks takes on=True or on=False; found {found}*"])


def test_a_test_that_fails_by_itself_is_reported_once(pytester: pytest.Pytester) -> None:
    source = """
        import asyncio

        async def test_it():
            asyncio.create_task(asyncio.sleep(60))
            assert False
        """
    run(pytester, source).assert_outcomes(failed=1)


# --- blocking calls ----------------------------------------------------------------------------------------


BLOCKS = """
import asyncio
import time
from bank import PiggyBank, PutIn, PutInOfPlugin
from uno_actors import ActorSystem, subscribe

@subscribe(PutInOfPlugin, name="look up")
async def look_up(event: PutInOfPlugin):
    time.sleep(0.001)

async def test_a_handler(tmp_path):
    async with ActorSystem(f"lmdb:{tmp_path}", handlers=[look_up]) as system:
        await system.aggregate(PiggyBank, "ann").ask(PutIn(amount=1))
        await system.settled()

async def test_through_a_library(tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").read_text()

@subscribe(PutInOfPlugin, name="plain")
def plain(event: PutInOfPlugin):
    time.sleep(0.001)

async def test_on_a_thread(tmp_path):
    async with ActorSystem(f"lmdb:{tmp_path}", handlers=[plain]) as system:
        await system.aggregate(PiggyBank, "ann").ask(PutIn(amount=1))
        await system.settled()
    await asyncio.to_thread(time.sleep, 0.001)

def test_without_a_loop():
    time.sleep(0.001)

async def test_prints():
    import sys
    print("here")
    print("and here", file=sys.stderr)
"""


@pytest.fixture
def bank(pytester: pytest.Pytester) -> None:
    from tests.testing.test_plugin import BANK

    pytester.makepyfile(bank=BANK)


@pytest.mark.usefixtures("bank")
def test_calls_that_block_are_named_at_the_line_of_the_project(pytester: pytest.Pytester) -> None:
    result = run(pytester, BLOCKS, ini=BLOCKING)
    result.assert_outcomes(passed=5, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_a_handler*",
            "*asynchronous code blocks the event loop:",
            "*  - time.sleep, at *test_it.py:8 in look_up",
            "*Instead, await *",
            "*ERROR at teardown of test_through_a_library*",
            "*  - io.TextIOWrapper.write, at *test_it.py:16 in test_through_a_library",
            "*  - io.TextIOWrapper.read, at *test_it.py:17 in test_through_a_library",
        ]
    )


@pytest.mark.usefixtures("bank")
def test_blocking_calls_are_looked_for_only_if_asked(pytester: pytest.Pytester) -> None:
    run(pytester, BLOCKS, ini=INI).assert_outcomes(passed=5)
    marked = BLOCKS.replace(
        "async def test_a_handler",
        "import pytest\n@pytest.mark.uno_actors_blocking\nasync def test_a_handler",
    )
    run(pytester, marked, ini=INI).assert_outcomes(passed=5, errors=1)


def test_a_missing_blockbuster_is_explained(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blockbuster", None)
    text = "*uno_actors_blocking needs the package blockbuster: pip install blockbuster*"
    run(pytester, "def test_it(): ...", ini=BLOCKING).stderr.fnmatch_lines([text])
    marked = "import pytest\n@pytest.mark.uno_actors_blocking\ndef test_it(): ..."
    result = run(pytester, marked, ini=INI)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([text])
