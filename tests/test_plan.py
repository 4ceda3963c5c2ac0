"""What the rules of supervision come to: worst cases, outages, and rules that contradict each other."""

import pytest

from uno_actors import Actor, Backoff, Supervisor
from uno_actors.handlers import HandlerSpec
from uno_actors.plan import plan, time_to_give_up
from uno_actors.supervisor import ChildSpec

AT_ONCE = Backoff(0.0, 0.0)


class Planned(Actor):
    pass


def handle(event: object) -> None: ...


def supervised(*children: object, restarts: int | None = 2, name: str = "s", **options: object) -> Supervisor:
    return Supervisor(name, children, max_restarts=restarts, **options)  # type: ignore[arg-type]


def handler(max_attempts: int, name: str = "mail") -> HandlerSpec:
    return HandlerSpec(name, handle, max_attempts=max_attempts)


# restarts of the supervisors from the outermost, failures in a row that end the system
NESTED = [
    ([0], 1),
    ([2], 3),
    ([5], 6),
    ([2, 3], 12),  # the inner one gives up three times, after four failures each
    ([1, 1, 1], 8),
    ([0, 4], 5),
    ([4, 0], 5),
]


@pytest.mark.parametrize(("budgets", "failures"), NESTED)
def test_nested_budgets_multiply(budgets: list[int], failures: int) -> None:
    tree: object = Planned
    for depth, restarts in reversed(list(enumerate(budgets))):
        tree = supervised(tree, restarts=restarts, name=f"s{depth}", backoff=AT_ONCE)
    assert isinstance(tree, Supervisor)
    found = plan([tree], 10).longest
    assert found is not None
    assert (found.failures, found.restarts) == (failures, failures - 1)
    assert found.path == (*(f"s{depth}" for depth in range(len(budgets))), "Planned")


def test_the_shortest_and_the_longest_way_to_the_end_are_told() -> None:
    outer = supervised(supervised(Planned, name="inner", restarts=3), ChildSpec(Planned, "other"), restarts=1)
    found = plan([outer], 10)
    assert found.shortest is not None
    assert found.longest is not None
    assert (found.shortest.path, found.shortest.failures) == (("s", "other"), 2)
    assert (found.longest.path, found.longest.failures) == (("s", "inner", "Planned"), 8)


@pytest.mark.parametrize("how", ["unlimited", "temporary", "in a temporary supervisor"])
def test_what_can_fail_for_ever_is_told(how: str) -> None:
    spec = ChildSpec(Planned, restart="temporary" if how == "temporary" else "permanent")
    tree = supervised(spec, restarts=None if how == "unlimited" else 2)
    if how == "in a temporary supervisor":
        tree = supervised(ChildSpec(tree, restart="temporary"), name="outer")
    found = plan([tree], 10)
    assert (found.shortest, found.longest, found.longest_outage) == (None, None, None)
    assert [path[-1] for path in found.endless] == ["Planned"]


# max_restarts, within, back-off (initial, max, factor), seconds from a start to the next failure, until given up
OUTAGES = [
    (5, 30, (0.1, 10, 2), 0, 0.1 + 0.2 + 0.4 + 0.8 + 1.6),
    (0, 30, (0.1, 10, 2), 0, 0),
    (3, 30, (0, 0, 1), 0, 0),
    (3, 30, (1, 1, 1), 0, 3),
    (3, 30, (1, 1, 1), 2, 9),
    (3, 30, (10, 10, 1), 0, 30),  # the first failure is 30 s ago, and the boundary counts
    (4, 30, (10, 10, 1), 0, None),  # never more than four within 30 s, this one included
    (9, 30, (0.1, 10, 2), 0, None),
    (None, 30, (0.1, 10, 2), 0, None),
    (5000, 30, (0, 0, 1), 0, 0),
    (5000, 30, (0.001, 0.001, 1), 0, 5),
    (5000, 1, (0.001, 0.001, 1), 0, None),
]


@pytest.mark.parametrize(("restarts", "within", "backoff", "lasting", "seconds"), OUTAGES)
def test_a_child_that_cannot_start_is_given_up_after_its_waits(
    restarts: int | None,
    within: float,
    backoff: tuple[float, float, float],
    lasting: float,
    seconds: float | None,
) -> None:
    rules = supervised(Planned, restarts=restarts, within=within, backoff=Backoff(*backoff))
    found = time_to_give_up(rules, lasting)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_the_outage_of_a_nested_child_lasts_through_all_incarnations_of_its_supervisor() -> None:
    each_second = Backoff(1.0, 1.0, 1.0)
    inner = supervised(Planned, restarts=2, name="inner", backoff=each_second)
    outer = supervised(inner, restarts=1, backoff=each_second)
    assert plan([outer], 10).longest_outage == 2 + 1 + 2


# max_restarts, max_attempts, contradiction
ATTEMPTS = [(5, 5, False), (5, 6, True), (0, 1, True), (None, 100, False), (2, 1, False)]


@pytest.mark.parametrize(("restarts", "attempts", "contradicts"), ATTEMPTS)
def test_attempts_that_the_budget_never_allows_are_a_contradiction(
    restarts: int | None, attempts: int, contradicts: bool
) -> None:
    findings = plan([supervised(handler(attempts), restarts=restarts)], 10).findings
    assert [finding.severity for finding in findings] == ["contradiction"] * contradicts
    if contradicts:
        (finding,) = findings
        assert finding.path == ("s", "mail")
        assert finding.option == "max_attempts"
        assert f"gives up at its failure {restarts + 1 if restarts is not None else None}" in finding.reason


def test_slow_attempts_leave_the_window_and_contradict_nothing() -> None:
    slow = supervised(handler(50), restarts=4, within=30, backoff=Backoff(10, 10, 1))
    assert [finding.severity for finding in plan([slow], 10).findings] == ["warning"]  # it never gives up


def test_the_time_to_stop_is_that_of_the_children_one_after_the_other() -> None:
    inner = supervised(
        ChildSpec(Planned, "a", shutdown=1), ChildSpec(Planned, "b", shutdown="kill"), name="i"
    )
    assert plan([supervised(inner, handler(1), restarts=5)], 10).shutdown == 1 + 5
    capped = supervised(ChildSpec(inner, shutdown=0.5))
    assert plan([capped], 10).shutdown == 0.5
    assert plan([supervised(ChildSpec(Planned, shutdown="infinity"))], 10).shutdown is None


def test_a_deadline_beyond_that_of_the_system_is_told() -> None:
    (finding,) = plan([supervised(ChildSpec(Planned, shutdown=11))], 10).findings
    assert (finding.severity, finding.option) == ("warning", "shutdown")
    assert "may take 11 s to stop" in finding.reason
    assert plan([supervised(ChildSpec(Planned, shutdown=10))], 10).findings == ()


def test_a_supervisor_of_nothing_is_told() -> None:
    (finding,) = plan([supervised()], 10).findings
    assert finding.reason == "it has no children"
