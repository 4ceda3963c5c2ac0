"""The plugin in test runs of its own, as users have them."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.uno_actors_leaks(False)  # the runs inside of these tests have leaks on purpose

BANK = """
from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles

class PutIn(Command[int]):
    amount: int

class PutInOfPlugin(DomainEvent):
    amount: int

class PiggyBank(AggregateRoot):
    def __init__(self, id):
        super().__init__(id)
        self.amount = 0

    @handles
    def put(self, command: PutIn) -> int:
        if command.amount < 0:
            raise CommandRejected("only in")
        self.register_event(PutInOfPlugin(amount=command.amount))
        return self.amount

    def apply_put_in_of_plugin(self, event):
        self.amount += event.amount
"""

AUTO = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
STRICT = AUTO.replace("auto", "strict")


@pytest.fixture
def run(pytester: pytest.Pytester) -> "Run":
    pytester.makepyfile(bank=BANK)
    return Run(pytester)


class Run:
    """Test runs in a directory of their own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def tests(self, source: str, *options: str, ini: str = AUTO) -> pytest.RunResult:
        self.pytester.makeini(ini)
        self.pytester.makepyfile(test_it=source)
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *options)

    def in_a_process(self, source: str, *options: str, ini: str = AUTO) -> pytest.RunResult:
        self.pytester.makeini(ini)
        self.pytester.makepyfile(test_it=source)
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


# --- fixtures ----------------------------------------------------------------------------------------------


def test_the_fixtures_come_with_the_installed_package(run: Run) -> None:
    result = run.in_a_process(
        """
        from bank import PiggyBank, PutIn, PutInOfPlugin
        from uno_actors import DomainEvent, subscribe
        from uno_actors.handlers.subscribe import handler_registry

        @subscribe(name="of the module")
        def outside(event: DomainEvent): ...

        def test_with_own_handlers(own_handlers):
            assert not own_handlers

            @subscribe(name="of the test")
            def inside(event: DomainEvent): ...

            assert [spec.name for spec in handler_registry.values()] == ["of the test"]

        def test_after_that():
            assert [spec.name for spec in handler_registry.values()] == ["of the module"]

        def test_time_is_turned_by_hand(manual_clock):
            rung = []
            manual_clock.call_later(60, lambda: rung.append(manual_clock.monotonic()))
            before = manual_clock.monotonic()
            manual_clock.advance(59)
            assert not rung
            manual_clock.advance(2)
            assert rung == [before + 60] and manual_clock.monotonic() == before + 61

        def test_a_probe(probe):
            probe.receive(1)
            assert probe.messages == [1]

        def test_rules(given):
            given(PiggyBank).when(PutIn(amount=2)).then(PutInOfPlugin(amount=2)).replies(2)

        def test_whole_systems(simulated):
            ran = []
            async def scenario(world):
                ran.append(world)
            assert simulated(scenario, 3).runs == 3
            assert len(ran) >= 3
        """
    )
    result.assert_outcomes(passed=6)


def test_a_fixture_of_the_project_with_the_same_name_wins(run: Run) -> None:
    run.pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def probe():
            return "mine"

        @pytest.fixture
        def given(given):
            return given
        """
    )
    result = run.tests(
        """
        from bank import PiggyBank, PutIn

        def test_mine(probe, given):
            assert probe == "mine"
            given(PiggyBank).when(PutIn(amount=2)).replies(2)
        """
    )
    result.assert_outcomes(passed=1)


def test_the_plugin_can_be_left_out(run: Run) -> None:
    result = run.in_a_process("def test_clock(manual_clock): ...", "-p", "no:uno_actors")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'manual_clock' not found*"])


def test_a_run_that_uses_nothing_of_it_imports_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        import pytest

        @pytest.mark.skip
        async def test_marked(): ...

        @pytest.mark.parametrize("number", [1, 2])
        def test_modules(number):
            ours = [name for name in sys.modules if name.startswith(("uno_actors", "uno_stores"))]
            assert ours == ["uno_actors", "uno_actors.testing", "uno_actors.testing.plugin"]
            assert not {"pydantic", "structlog", "msgpack"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, skipped=1)


def test_markers_and_settings_explain_themselves(run: Run) -> None:
    result = run.tests("", "--markers", "--strict-markers")
    for marker in ("simulated(seeds=200)", "uno_actors_leaks(on=True)", "uno_actors_blocking(on=True)"):
        result.stdout.fnmatch_lines([f"@pytest.mark.{marker.replace('[', '[[]')}: *"])
    run.tests("", "--help").stdout.fnmatch_lines(
        ["*--uno-seeds=N*", "*uno_actors_leaks (bool):*", "*uno_actors_blocking (bool):*"]
    )


# --- simulated tests ---------------------------------------------------------------------------------------

SCENARIOS = """
import pytest
from bank import PiggyBank, PutIn
from uno_actors import ActorSystem
from uno_actors.testing.simulation import InvariantBroken

RUNS = []

def make_system(node):
    return ActorSystem(node.store, aggregates=[PiggyBank], handlers=[])

@pytest.mark.simulated(seeds=3)
async def test_put_in(world):
    await world.node("a", make_system)
    for _ in world.commands(2):
        await world.ask(PiggyBank, "ann", PutIn(amount=1))
    RUNS.append(1)

class TestOfPiggyBanks:
    @pytest.mark.simulated(seeds=2, faults=0)
    @pytest.mark.parametrize("amount", [1, 2])
    async def test_amounts(self, world, amount, tmp_path):
        assert isinstance(self, TestOfPiggyBanks) and tmp_path.exists()
        await world.node("a", make_system)
        assert await world.ask(PiggyBank, "ann", PutIn(amount=amount)) == amount

@pytest.mark.simulated(seeds=2)
def test_with_the_fixture(simulated):
    async def scenario(world): ...
    assert simulated(scenario).runs == 2

def test_that_the_first_ran():
    assert len(RUNS) >= 3
"""


@pytest.mark.parametrize(
    ("ini", "options"),
    [(AUTO, ()), (STRICT, ()), (STRICT, ("-p", "no:asyncio")), (STRICT, ("-p", "no:anyio"))],
    ids=["auto", "strict", "without pytest-asyncio", "without anyio"],
)
def test_scenarios_run_beside_the_plugins_for_coroutines(
    run: Run, ini: str, options: tuple[str, ...]
) -> None:
    if "no:asyncio" in options:
        ini = "[pytest]"
    result = run.in_a_process(SCENARIOS, "-W", "error", *options, ini=ini)
    result.assert_outcomes(passed=5)


def test_scenarios_run_in_modules_whose_tests_are_all_of_asyncio_or_anyio(run: Run) -> None:
    everything = "pytestmark = [pytest.mark.asyncio, pytest.mark.anyio]\n\n@pytest.mark.simulated(seeds=3)"
    source = SCENARIOS.replace("@pytest.mark.simulated(seeds=3)", everything, 1)
    only_scenarios = source[: source.index("@pytest.mark.simulated(seeds=2)")]
    result = run.in_a_process(only_scenarios, "-W", "error", ini=STRICT)
    result.assert_outcomes(passed=3)


def test_a_scenario_that_fails_says_how_to_repeat_it_by_both_ways(run: Run) -> None:
    source = (
        SCENARIOS
        + """
@pytest.mark.simulated(seeds=3, kinds=["slow disk"])
async def test_broken(world):
    raise InvariantBroken("all is well", "it is not")
"""
    )
    result = run.tests(source, "-k", "broken")
    result.assert_outcomes(failed=1, deselected=5)
    result.stdout.fnmatch_lines(
        [
            "*all is well: it is not",
            "*To repeat it: uno-actors simulate test_it:test_broken --seed 0 *",
            '*To repeat it by pytest: pytest "test_it.py::test_broken" --uno-seed 0',
        ]
    )
    told = subprocess.run(
        [sys.executable, "-m", "uno_actors", "simulate", "test_it:test_broken", "--seed", "0"],
        capture_output=True, text=True, check=False, cwd=run.pytester.path,
    )  # fmt: skip
    assert told.returncode == 1
    assert "all is well: it is not" in told.stdout


def test_the_command_line_decides_which_seeds_run(run: Run) -> None:
    source = """
        import pytest

        SEEDS = []

        @pytest.mark.simulated(seeds=100)
        async def test_seeds(world):
            SEEDS.append(world.core.seed)

        def test_which():
            print("seeds:", sorted({seed for seed in SEEDS if isinstance(seed, int)}))
        """
    run.tests(source, "-s", "--uno-seed", "17").stdout.fnmatch_lines(["*seeds: [[]17]*"])
    run.tests(source, "-s", "--uno-seeds", "2").stdout.fnmatch_lines(["*seeds: [[]0, 1]*"])


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("simulated(seed=5)", "the marker simulated takes seeds, faults, *; found seed"),
        ("simulated(5, 6)", "the marker simulated takes seeds, *; found 6"),
        ("simulated(5, seeds=5)", "the marker simulated takes seeds, *; found seeds twice"),
        ("simulated(kinds=['flood'])", "*kinds of faults are a list of some of: *; found flood"),
    ],
)
def test_a_marker_with_a_mistake_is_explained(run: Run, marker: str, text: str) -> None:
    result = run.tests(f"import pytest\n@pytest.mark.{marker}\nasync def test_it(world): ...")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{text}*"])


def test_a_scenario_without_a_world_is_refused(run: Run) -> None:
    result = run.tests("import pytest\n@pytest.mark.simulated\nasync def test_it(): ...")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_it: a scenario takes the world: async def test_it(world)*"])


@pytest.mark.parametrize(
    "test",
    [
        "@pytest.mark.simulated\n@given(number=integers())\nasync def test_it(world, number): ...",
        "@pytest.mark.simulated\ndef test_it(world): ...",
        "class TestIt:\n    @staticmethod\n    @pytest.mark.simulated\n    async def test_it(world): ...",
    ],
    ids=["a test of Hypothesis", "a plain function", "a static method"],
)
def test_a_marker_that_would_simulate_nothing_is_refused(run: Run, test: str) -> None:
    imports = "import pytest\nfrom hypothesis import given\nfrom hypothesis.strategies import integers\n"
    result = run.tests(imports + test)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*test_it: the marker simulated is for async def test(world)*takes the fixture*"]
    )


OF_HYPOTHESIS = """
import pytest
from bank import *
from uno_actors import ActorSystem
from hypothesis import given as for_all, settings
from hypothesis.strategies import integers

async def scenario(world):
    await world.node("bank", lambda node: ActorSystem(node.store, aggregates=[PiggyBank], handlers=[]))

@pytest.mark.simulated(seeds=2)
@settings(max_examples=3, deadline=None)
@for_all(amount=integers(1, 9))
def test_simulated(simulated, amount):
    assert simulated(scenario, faults=0).runs == 2

@settings(max_examples=3, deadline=None)
@for_all(amount=integers(1, 9))
def test_given(given, amount):
    given(PiggyBank).when(PutIn(amount=amount)).then(PutInOfPlugin(amount=amount))
"""


def test_tests_of_hypothesis_use_the_fixtures(run: Run) -> None:
    run.tests(OF_HYPOTHESIS).assert_outcomes(passed=2)


SKIPPED = """
import pytest

@pytest.mark.simulated(seeds=3)
async def test_skipped(world):
    pytest.skip("no shop in here")

@pytest.mark.simulated(seeds=3)
async def test_expected(world):
    pytest.xfail("as known")

@pytest.mark.simulated(seeds=3)
async def test_failed(world):
    pytest.fail("in my words")
"""


def test_a_scenario_may_skip_or_fail_as_any_test(run: Run) -> None:
    result = run.tests(SKIPPED, "-rs")
    result.assert_outcomes(skipped=1, xfailed=1, failed=1)
    result.stdout.fnmatch_lines(["*SimulationFailed: Failed: in my words*", "*no shop in here*"])


def test_a_coroutine_uses_the_fixture_beside_a_system_of_its_own(run: Run) -> None:
    source = """
from bank import *
from uno_actors import ActorSystem

async def test_it(simulated):
    async def scenario(world):
        await world.node("bank", lambda node: ActorSystem(node.store, aggregates=[PiggyBank], handlers=[]))

    async with ActorSystem("memory:", aggregates=[PiggyBank], handlers=[]) as system:
        simulated(scenario, 2, faults=0)
        assert await system.aggregate(PiggyBank, "a").ask(PutIn(amount=3)) == 3
"""
    run.in_a_process(source).assert_outcomes(passed=1)
