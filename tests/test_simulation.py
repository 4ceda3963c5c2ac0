"""The rules of supervision in virtual time, with simulated failures."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uno_actors import Actor, Backoff, Supervisor
from uno_actors.config.analysis import analyse, time_to_give_up
from uno_actors.config.simulation import Fault, InvalidFault, Simulation, simulate
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.supervision.spec import ChildSpec

AT_ONCE = Backoff(0.0, 0.0)
SURE = Backoff(1.0, 1.0, 1.0, 0.0)
"""One second, without jitter."""


class Simulated(Actor):
    pass


def handle(event: object) -> None: ...


def mail(max_attempts: int = 5) -> HandlerSpec:
    return HandlerSpec("mail", handle, max_attempts=max_attempts)


def tree_of(*children: object, restarts: int | None = 2, name: str = "s", **options: Any) -> Supervisor:
    return Supervisor(name, children, max_restarts=restarts, **{"backoff": AT_ONCE, **options})


def simulated(
    *supervisors: Supervisor, fault: str = "mail fails 100%", seconds: float = 3600.0, seed: int = 0
) -> Simulation:
    return simulate(analyse(supervisors, 10).tree, [Fault.parse(fault)], seconds, seed)


# --- faults ------------------------------------------------------------------------------------------------

FAULTS = [
    ("mail fails 30%", Fault("mail", 0.3)),
    ("mail fails 0.5 %", Fault("mail", 0.005)),
    ("mail fails 100% of 5/s for 10m after 1h", Fault("mail", 1.0, 5.0, 3600.0, 4200.0)),
    ("the mail cannot start for 2m", Fault("the mail", None, 1.0, 0.0, 120.0)),
    ("mail cannot start after 10s", Fault("mail", None, 1.0, 10.0)),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_faults_are_written_in_words(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mail",
        "fails 30%",
        "mail fails 101%",
        "mail fails 3",
        "mail fails 1% of 0/s",
        "mail fails 1% for 5",
    ],
)
def test_a_malformed_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidFault, match="Write 'mail fails 30%'"):
        Fault.parse(text)


def test_a_fault_of_an_unknown_child_is_refused() -> None:
    with pytest.raises(InvalidFault, match="there are mail"):
        simulated(tree_of(mail()), fault="nobody fails 1%")
    with pytest.raises(InvalidFault, match="several children"):
        simulated(tree_of(mail()), tree_of(mail(), name="t"))


# --- what comes of them ------------------------------------------------------------------------------------


def test_without_failures_everything_is_handled() -> None:
    outcome = simulated(tree_of(mail()), fault="mail fails 0% of 2/s")
    child = outcome.children["s", "mail"]
    assert (child.handled, child.failures, child.restarts, child.down) == (7200, 0, 0, 0)
    assert not outcome.ended


def test_the_third_crash_within_an_hour_exceeds_a_budget_of_two() -> None:
    outcome = simulated(tree_of(mail(), within=3600.0), fault="mail fails 100% of 0.01/s")
    child = outcome.children["s", "mail"]
    assert (child.failures, child.restarts) == (3, 2)
    assert outcome.gave_up == [(100.0, ("s",))]  # at the first message, again and again
    assert outcome.ended
    assert outcome.seconds == 100.0


def test_a_message_that_fails_too_often_is_set_aside_and_the_child_continues() -> None:
    outcome = simulated(
        tree_of(mail(3), restarts=None, backoff=SURE), fault="mail fails 100% of 0.1/s for 100s"
    )
    child = outcome.children["s", "mail"]
    assert child.dead == 9
    assert (child.failures, child.restarts) == (27, 27)
    assert child.handled == 360 - 9
    assert child.down == pytest.approx(27)
    assert not outcome.ended


def test_the_budget_of_nested_supervisors_is_their_product() -> None:
    inner = tree_of(ChildSpec(Simulated, "mail"), restarts=3, name="inner")
    outcome = simulated(tree_of(inner, restarts=2), fault="mail cannot start after 10s")
    found = analyse([tree_of(inner, restarts=2)], 10).longest
    assert found is not None
    assert outcome.ended
    # the first failure is of the running child, the others are of starts; each but the last is followed by one
    assert outcome.children["s", "inner", "mail"].failures >= found.failures / 4
    assert outcome.gave_up[-1] == (10.0, ("s",))


def test_the_strategy_decides_which_siblings_go_down_with_a_failed_child() -> None:
    for strategy, restarted in [
        ("one_for_one", [0, 1, 0]),
        ("one_for_all", [1, 1, 1]),
        ("rest_for_one", [0, 1, 1]),
    ]:
        children = [ChildSpec(Simulated, "a"), mail(1), ChildSpec(Simulated, "b")]
        tree = tree_of(*children, strategy=strategy, backoff=SURE)
        outcome = simulated(tree, fault="mail fails 100% of 0.1/s for 11s")
        assert [child.restarts for child in outcome.children.values()] == restarted
        assert [child.down for child in outcome.children.values()] == [pytest.approx(n) for n in restarted]


def test_a_temporary_child_is_not_restarted() -> None:
    outcome = simulated(tree_of(ChildSpec(mail(), restart="temporary")), fault="mail fails 100%")
    child = outcome.children["s", "mail"]
    assert (child.failures, child.restarts, outcome.ended) == (1, 0, False)
    assert child.longest == pytest.approx(3599)


def test_directives_are_followed() -> None:
    resume = tree_of(mail(), directives={Exception: "resume"})
    child = simulated(resume, fault="mail fails 100% for 60s").children["s", "mail"]
    assert (child.dead, child.restarts, child.failures) == (59, 0, 59)
    assert simulated(tree_of(mail(), directives={Exception: "escalate"})).seconds == 1.0
    stopped = simulated(tree_of(mail(), directives={Exception: "stop"})).children["s", "mail"]
    assert (stopped.failures, stopped.restarts) == (1, 0)


def test_the_same_seed_gives_the_same_results() -> None:
    tree = tree_of(mail(), restarts=None, backoff=Backoff())
    assert simulated(tree, fault="mail fails 30%") == simulated(tree, fault="mail fails 30%")
    assert simulated(tree, fault="mail fails 30%") != simulated(tree, fault="mail fails 30%", seed=1)


rules = st.builds(
    lambda restarts, within, initial, more, factor: tree_of(
        ChildSpec(Simulated, "mail"),
        restarts=restarts,
        within=within,
        backoff=Backoff(initial, initial + more, factor, 0.0),
    ),
    st.integers(0, 8),
    st.integers(1, 60).map(float),
    st.integers(1, 40).map(lambda n: n / 8),
    st.integers(0, 80).map(lambda n: n / 8),
    st.sampled_from([1.0, 2.0, 3.0]),
)


@given(rules)
@settings(max_examples=200)
def test_a_child_that_cannot_start_ends_the_system_as_analysed(tree: Supervisor) -> None:
    wanted = time_to_give_up(tree)
    outcome = simulated(tree, fault="mail cannot start after 8s", seconds=10_000.0)
    assert outcome.ended == (wanted is not None)
    if wanted is not None:
        assert outcome.seconds == pytest.approx(8 + wanted)
        assert outcome.children["s", "mail"].failures == (tree.max_restarts or 0) + 1


@given(rules, st.integers(1, 12))
@settings(max_examples=200)
def test_attempts_that_the_analysis_calls_unreachable_are_never_reached(
    tree: Supervisor, attempts: int
) -> None:
    supervisor = tree_of(mail(attempts), restarts=tree.max_restarts, within=tree.within, backoff=tree.backoff)
    is_contradiction = any(
        finding.severity == "contradiction" for finding in analyse([supervisor], 10).findings
    )
    outcome = simulated(supervisor, fault="mail fails 100% of 0.0001/s", seconds=15_000.0)
    assert outcome.children["s", "mail"].dead == (not is_contradiction)
