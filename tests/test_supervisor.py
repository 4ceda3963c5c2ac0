"""What a supervisor decides, as tables of values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import Backoff, Supervisor
from uno_actors.supervisor import DeadLetterEvent, Decision, GiveUp, Restart, RestartBudget, decide

PLAIN = Backoff(initial=0.1, max=10.0, factor=2.0, jitter=0.0)


@pytest.mark.parametrize(
    ("backoff", "restart", "chance", "expected"),
    [
        (PLAIN, 0, 0.0, 0.1),  # the first restart waits the initial delay
        (PLAIN, 1, 0.0, 0.2),  # each next one twice as long
        (PLAIN, 6, 0.0, 6.4),  # still below the cap
        (PLAIN, 7, 0.0, 10.0),  # 12.8 is capped
        (PLAIN, 10**9, 0.0, 10.0),  # however often: no overflow
        (PLAIN, 3, 0.999, 0.8),  # without jitter chance changes nothing
        (Backoff(1, 10, 1, 0), 5, 0.0, 1.0),  # a factor of one: constant
        (Backoff(1, 10, 2, 0.5), 0, 0.0, 1.0),  # jitter takes nothing at chance 0
        (Backoff(1, 10, 2, 0.5), 0, 0.5, 0.75),  # and its share of chance beyond
        (Backoff(1, 10, 2, 1.0), 0, 0.75, 0.25),  # with full jitter nearly all
        (Backoff(1, 10, 2, 0.5), 9, 0.5, 7.5),  # jitter comes after the cap
        (Backoff(0, 0), 4, 0.3, 0.0),  # no wait at all
        (Backoff(0, 10), 4, 0.3, 0.0),  # nothing doubled is nothing
        (Backoff(2, 2, 3, 0), 2, 0.0, 2.0),  # initial and cap may be the same
    ],
)
def test_the_delay_grows_to_its_cap_and_jitter_only_takes_away(
    backoff: Backoff, restart: int, chance: float, expected: float
) -> None:
    assert backoff.delay(restart, chance) == pytest.approx(expected)


backoffs = st.builds(
    lambda low, more, factor, jitter: Backoff(low, low + more, factor, jitter),
    st.floats(0, 100),
    st.floats(0, 1000),
    st.floats(1, 10),
    st.floats(0, 1),
)
chances = st.floats(0, 1, exclude_max=True)


@given(backoffs, st.integers(0, 5000), chances)
def test_the_delay_stays_between_its_bounds(backoff: Backoff, restart: int, chance: float) -> None:
    delay = backoff.delay(restart, chance)
    assert backoff.initial * (1 - backoff.jitter) - 1e-9 <= delay <= backoff.max


@given(backoffs, st.integers(0, 2000), chances)
def test_a_later_restart_never_waits_less(backoff: Backoff, restart: int, chance: float) -> None:
    assert backoff.delay(restart, chance) <= backoff.delay(restart + 1, chance)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initial": -0.1}, "0 <= initial <= max; found initial=-0.1, max=10.0"),  # no time runs backwards
        ({"initial": 11}, "0 <= initial <= max"),  # the cap is below the beginning
        ({"max": math.inf}, "0 <= initial <= max"),  # a wait for ever is no restart
        ({"initial": math.nan}, "0 <= initial <= max"),
        ({"factor": 0.5}, "factor >= 1; found 0.5"),  # it would shrink
        ({"jitter": -0.1}, "0 <= jitter <= 1"),
        ({"jitter": 1.1}, "0 <= jitter <= 1; found 1.1"),  # more than the whole delay
    ],
)
def test_a_back_off_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backoff(**values)


@pytest.mark.parametrize(
    ("max_restarts", "within", "restarts", "now", "allowed"),
    [
        (3, 10, [], 100, True),  # nothing happened yet
        (3, 10, [98, 99], 100, True),  # two of three
        (3, 10, [97, 98, 99], 100, False),  # three of three
        (3, 10, [90, 98, 99], 100, False),  # exactly `within` ago counts still: the boundary is inclusive
        (3, 10, [89.999, 98, 99], 100, True),  # and just beyond counts no more
        (3, 10, [1, 2, 3, 4, 99], 100, True),  # what is long ago is forgotten
        (0, 10, [], 100, False),  # zero gives up at the first failure
        (1, 10, [], 100, True),
        (1, 10, [100], 100, False),  # in the same moment
        (None, 10, [100] * 1000, 100, True),  # no limit
    ],
)
def test_the_budget_is_a_sliding_window(
    max_restarts: int | None, within: float, restarts: list[float], now: float, allowed: bool
) -> None:
    assert RestartBudget(max_restarts, within).allows(restarts, now) is allowed


@given(st.integers(0, 6), st.floats(0.1, 50), st.lists(st.floats(0, 100), max_size=30).map(sorted))
def test_no_window_ever_holds_more_restarts_than_the_budget(
    max_restarts: int, within: float, failures: list[float]
) -> None:
    budget = RestartBudget(max_restarts, within)
    restarts: tuple[float, ...] = ()
    all_restarts: list[float] = []
    for now in failures:
        if not budget.allows(restarts, now):
            break
        restarts = (*budget.recent(restarts, now), now)
        all_restarts.append(now)
    for end in all_restarts:
        assert len([moment for moment in all_restarts if 0 <= end - moment <= within]) <= max_restarts


@pytest.mark.parametrize("values", [(-1, 30.0), (1, 0.0), (1, -2.0), (None, 0.0)])
def test_a_budget_that_cannot_be_is_refused(values: tuple[int | None, float]) -> None:
    with pytest.raises(ValueError, match="found"):
        RestartBudget(*values)


def test_a_budget_reads_as_a_sentence() -> None:
    assert str(RestartBudget(5, 30)) == "5 restarts within 30 s"
    assert str(RestartBudget(1, 0.5)) == "1 restarts within 0.5 s"
    assert str(RestartBudget()) == "any number of restarts"


@pytest.mark.parametrize(
    ("budget", "attempt", "max_attempts", "restarts", "expected"),
    [
        (RestartBudget(), 1, 5, [], Restart(0.1)),  # first failure: again, after the initial delay
        (RestartBudget(), 4, 5, [], Restart(0.8)),  # the same event for the fourth time: a longer wait
        (RestartBudget(), 5, 5, [], DeadLetterEvent(0.1)),  # its last attempt; the next event waits little
        (RestartBudget(), 9, 5, [], DeadLetterEvent(0.1)),  # max_attempts was lowered meanwhile
        (RestartBudget(), 1, 1, [], DeadLetterEvent(0.1)),  # no second attempt
        (RestartBudget(2, 10), 1, 5, [95.0], Restart(0.1)),  # one of two in the window
        (RestartBudget(2, 10), 1, 5, [95.0, 96.0], GiveUp()),  # used up
        (RestartBudget(2, 10), 5, 5, [95.0, 96.0], GiveUp()),  # also when the event could be set aside
        (RestartBudget(2, 10), 1, 5, [90.0, 96.0], GiveUp()),  # boundary inclusive
        (RestartBudget(2, 10), 1, 5, [80.0, 96.0], Restart(0.1)),  # one has slid out of the window
        (RestartBudget(0, 10), 1, 5, [], GiveUp()),  # never again
    ],
)
def test_what_becomes_of_a_failed_child(
    budget: RestartBudget, attempt: int, max_attempts: int, restarts: list[float], expected: Decision
) -> None:
    decision = decide(
        budget,
        PLAIN,
        attempt=attempt,
        max_attempts=max_attempts,
        restarts=restarts,
        now=100.0,
        chance=0.0,
    )
    assert type(decision) is type(expected)
    if isinstance(expected, (Restart, DeadLetterEvent)) and isinstance(decision, (Restart, DeadLetterEvent)):
        assert decision.delay == pytest.approx(expected.delay)


def test_a_supervisor_checks_its_values_where_they_enter() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Supervisor("")
    with pytest.raises(ValueError, match="max_restarts must not be negative"):
        Supervisor("mail", max_restarts=-1)
    with pytest.raises(ValueError, match="positive number of seconds"):
        Supervisor("mail", within=0)
    assert Supervisor("mail", max_restarts=2, within=3).restart_budget == RestartBudget(2, 3)
