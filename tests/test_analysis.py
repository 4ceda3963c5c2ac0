"""The analysis of supervision: worst cases, outages, and contradictory rules."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import Actor, Backoff, Supervisor
from uno_actors.config.analysis import analyse, time_to_give_up
from uno_actors.config.simulation import Fault, simulate
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.supervision.spec import ChildSpec

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
    found = analyse([nested(budgets, Planned)], 10).longest
    assert found is not None
    assert (found.failures, found.restarts) == (failures, failures - 1)
    assert found.path == (*(f"s{depth}" for depth in range(len(budgets))), "Planned")


def test_the_shortest_and_the_longest_escalation_are_reported() -> None:
    outer = supervised(supervised(Planned, name="inner", restarts=3), ChildSpec(Planned, "other"), restarts=1)
    found = analyse([outer], 10)
    assert found.shortest is not None
    assert found.longest is not None
    assert (found.shortest.path, found.shortest.failures) == (("s", "other"), 2)
    assert (found.longest.path, found.longest.failures) == (("s", "inner", "Planned"), 8)


@pytest.mark.parametrize("how", ["unlimited", "temporary", "in a temporary supervisor"])
def test_a_child_that_can_fail_forever_is_reported(how: str) -> None:
    spec = ChildSpec(Planned, restart="temporary" if how == "temporary" else "permanent")
    tree = supervised(spec, restarts=None if how == "unlimited" else 2)
    if how == "in a temporary supervisor":
        tree = supervised(ChildSpec(tree, restart="temporary"), name="outer")
    found = analyse([tree], 10)
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
    assert analyse([outer], 10).longest_outage == 2 + 1 + 2


# max_restarts, max_attempts, contradiction
ATTEMPTS = [(5, 5, False), (5, 6, True), (0, 1, True), (None, 100, False), (2, 1, False)]


@pytest.mark.parametrize(("restarts", "attempts", "contradicts"), ATTEMPTS)
def test_attempts_that_the_budget_never_allows_are_a_contradiction(
    restarts: int | None, attempts: int, contradicts: bool
) -> None:
    findings = analyse([supervised(handler(attempts), restarts=restarts)], 10).findings
    assert [finding.severity for finding in findings] == ["contradiction"] * contradicts
    if contradicts:
        (finding,) = findings
        assert finding.path == ("s", "mail")
        assert finding.option == "max_attempts"
        assert f"gives up at failure {restarts + 1 if restarts is not None else None}" in finding.reason


# restarts of the supervisors from the outermost, max_attempts, at which failure it is over
NESTED_ATTEMPTS = [
    ([5, 1], 5, None),  # the attempts of an event are counted on when the inner one has given up
    ([5, 1], 11, None),
    ([5, 1], 12, 12),
    ([5, 0], 5, None),
    ([5, 0], 6, 6),
    ([0, 5], 5, None),
    ([0, 5], 6, 6),
    ([1, 1, 1], 7, None),
    ([1, 1, 1], 8, 8),
    ([None, 0], 1000, None),
]


@pytest.mark.parametrize(("budgets", "attempts", "over"), NESTED_ATTEMPTS)
def test_an_event_gets_the_restarts_of_all_supervisors_above_its_handler(
    budgets: list[int | None], attempts: int, over: int | None
) -> None:
    findings = analyse([nested(budgets, handler(attempts))], 10).findings
    contradictions = [finding for finding in findings if finding.severity == "contradiction"]
    assert len(contradictions) == (over is not None)
    if over is not None:
        assert f"but 's0' gives up at failure {over}: raise" in contradictions[0].reason


def test_an_event_that_ends_an_inner_supervisor_before_it_becomes_a_dead_letter_is_a_warning() -> None:
    (finding,) = analyse([nested([5, 3], handler(9))], 10).findings
    assert (finding.severity, finding.path) == ("warning", ("s0", "s1", "mail"))
    assert finding.reason == (
        "an event should get 9 attempts, but 's1' gives up at failure 4, which restarts all its children:"
        " raise max_restarts there to 9, or write 3 here"
    )


def nested(budgets: Sequence[int | None], child: object, **options: object) -> Supervisor:
    """Supervisors ``s0``, ``s1``... from the outermost."""
    for depth, restarts in reversed(list(enumerate(budgets))):
        child = supervised(child, restarts=restarts, name=f"s{depth}", **{"backoff": AT_ONCE} | options)
    assert isinstance(child, Supervisor)
    return child


def test_a_temporary_supervisor_is_never_restarted() -> None:
    inner = supervised(handler(4), name="inner", restarts=2)
    outer = supervised(ChildSpec(inner, restart="temporary"), restarts=100)
    (finding,) = [one for one in analyse([outer], 10).findings if one.severity == "contradiction"]
    assert "'inner' gives up at failure 3: raise max_restarts there to 4, or write 2 here" in finding.reason


def test_a_temporary_handler_has_one_attempt_whatever_the_budget_is() -> None:
    assert analyse([supervised(ChildSpec(handler(5), restart="temporary"), restarts=0)], 10).findings == ()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from([AT_ONCE, Backoff(0.1, 10.0, 2.0, 0.0), Backoff(1.0, 1.0, 1.0, 0.0, 0.5)]),
    st.sampled_from([0.97, 29.3]),  # no sum of waits, of which the boundary would be one of rounding
)
def test_an_event_fails_as_often_as_in_a_simulation(
    budgets: list[int], backoff: Backoff, within: float
) -> None:
    rules = nested(budgets, handler(100), backoff=backoff, within=within)
    found = analyse([rules], 10)
    over = [finding for finding in found.findings if finding.severity == "contradiction"]
    simulated = simulate(found.tree, [Fault("mail", 1.0)], 100 * 60.0)
    (mail,) = simulated.children.values()
    if over:
        assert simulated.ended
        assert f"gives up at failure {mail.failures}:" in over[0].reason
    else:
        assert mail.dead > 0


def test_slow_attempts_fall_out_of_the_window_and_are_no_contradiction() -> None:
    slow = supervised(handler(50), restarts=4, within=30, backoff=Backoff(10, 10, 1))
    assert [finding.severity for finding in analyse([slow], 10).findings] == ["warning"]  # it never gives up


def test_the_time_to_stop_is_the_sum_over_the_children() -> None:
    inner = supervised(
        ChildSpec(Planned, "a", shutdown=1), ChildSpec(Planned, "b", shutdown="kill"), name="i"
    )
    assert analyse([supervised(inner, handler(1), restarts=5)], 10).shutdown == 1 + 5
    capped = supervised(ChildSpec(inner, shutdown=0.5))
    assert analyse([capped], 10).shutdown == 0.5
    assert analyse([supervised(ChildSpec(Planned, shutdown="infinity"))], 10).shutdown is None


def test_a_deadline_beyond_that_of_the_system_is_reported() -> None:
    (finding,) = analyse([supervised(ChildSpec(Planned, shutdown=11))], 10).findings
    assert (finding.severity, finding.option) == ("warning", "shutdown")
    assert "may take 11 s to stop" in finding.reason
    assert analyse([supervised(ChildSpec(Planned, shutdown=10))], 10).findings == ()


def test_a_supervisor_without_children_is_reported() -> None:
    (finding,) = analyse([supervised()], 10).findings
    assert finding.reason == "it has no children"
