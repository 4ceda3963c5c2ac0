"""The rules of a supervisor, as values: back-off, budget, specifications of children."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import Actor, Backoff, ChildSpec, InvalidSupervisor, Supervisor
from uno_actors.supervision.spec import RestartBudget

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
        (Backoff(1, 10, 2, 0.5), 0, 0.5, 0.75),  # and its random share beyond
        (Backoff(1, 10, 2, 1.0), 0, 0.75, 0.25),  # with full jitter nearly all
        (Backoff(1, 10, 2, 0.5), 9, 0.5, 7.5),  # jitter comes after the cap
        (Backoff(0, 0), 4, 0.3, 0.0),  # no wait at all
        (Backoff(0, 10), 4, 0.3, 0.0),  # nothing doubled is nothing
        (Backoff(2, 2, 3, 0), 2, 0.0, 2.0),  # initial and cap may be the same
    ],
)
def test_the_delay_grows_to_its_cap_and_jitter_only_shortens_it(
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
        (
            {"initial": -0.1},
            "initial must be a number of seconds .* found -0.1",
        ),  # no time runs backwards
        (
            {"initial": 11},
            "initial must be at most its max, 10.0; found 11",
        ),  # the cap is below the beginning
        ({"max": math.inf}, "max must be a number of seconds .* found inf"),  # waiting forever is no restart
        ({"initial": math.nan}, "initial must be a number of seconds .* found nan"),
        ({"factor": 0.5}, "factor must be a finite number, 1 or more; found 0.5"),  # it would shrink
        ({"factor": math.nan}, "factor must be a finite number, 1 or more; found nan"),
        (
            {"factor": math.inf},
            "factor must be a finite number, 1 or more; found inf",
        ),  # 0 x infinity is no time
        ({"jitter": -0.1}, "jitter must be a finite number, from 0 to 1; found -0.1"),
        (
            {"jitter": 1.1},
            "jitter must be a finite number, from 0 to 1; found 1.1",
        ),  # more than the whole delay
    ],
)
def test_an_invalid_back_off_is_refused(values: dict[str, float], message: str) -> None:
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


@pytest.mark.parametrize("values", [(-1, 30.0), (1, 0.0), (1, -2.0), (None, 0.0), (1, math.nan)])
def test_an_invalid_budget_is_refused(values: tuple[int | None, float]) -> None:
    with pytest.raises(ValueError, match="found"):
        RestartBudget(*values)


def test_a_budget_reads_as_a_sentence() -> None:
    assert str(RestartBudget(5, 30)) == "5 restarts within 30 s"
    assert str(RestartBudget(1, 0.5)) == "1 restarts within 0.5 s"
    assert str(RestartBudget()) == "any number of restarts"


def test_a_supervisor_checks_its_values_where_they_enter() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Supervisor("")
    with pytest.raises(ValueError, match="max_restarts must be a whole number, 0 or more, or None; found -1"):
        Supervisor("mail", max_restarts=-1)
    with pytest.raises(ValueError, match="positive number of seconds"):
        Supervisor("mail", within=0)
    assert Supervisor("mail", max_restarts=2, within=3).restart_budget == RestartBudget(2, 3)


class Worker(Actor):
    async def on_receive(self, message: object) -> None: ...


def handler(event: object) -> None: ...


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"strategy": "one_for_two"},
            "strategy must be one of one_for_one, one_for_all, rest_for_one; found 'one",
        ),
        ({"budget": "family"}, "budget must be one of supervisor, child; found 'family'"),
        (
            {"auto_shutdown": "sometimes"},
            "auto_shutdown must be one of never, any_significant, all_significant",
        ),
        (
            {"auto_shutdown": "any_significant"},
            "auto_shutdown is 'any_significant' and no child is significant",
        ),
        (
            {"directives": {ValueError: "ignore"}},
            "the directive for ValueError must be one of restart, resume, st",
        ),
        ({"directives": {int: "stop"}}, "directives are by class of error; found <class 'int'>"),
        ({"directives": {"ValueError": "stop"}}, "directives are by class of error; found 'ValueError'"),
        ({"children": [Worker, Worker]}, "two children are named 'Worker'"),
        ({"children": [Worker, ChildSpec(handler, name="Worker")]}, "two children are named 'Worker'"),
        (
            {"children": [ChildSpec(Worker, restart="transient", significant=True)]},
            "a child is significant, which means nothing while auto_shutdown is 'never'",
        ),
    ],
)
def test_rules_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSupervisor) as caught:
        Supervisor("team", **values)
    assert f"supervisor 'team': {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"restart": "always"}, "restart must be one of permanent, transient, temporary; found 'always'"),
        ({"shutdown": -1}, "shutdown must be seconds, 'kill' or 'infinity'; found -1"),
        ({"shutdown": "later"}, "shutdown must be seconds, 'kill' or 'infinity'; found 'later'"),
        ({"shutdown": True}, "shutdown must be seconds, 'kill' or 'infinity'; found True"),
        ({"max_attempts": 0}, "max_attempts must be a whole number, 1 or more; found 0"),
        ({"significant": True}, "significant and permanent, but a permanent child never ends by itself"),
        ({"dispatcher": "pool"}, "dispatcher must be one of shared, thread; found 'pool'"),
        ({"run": handler, "args": [1]}, "args, kwargs and dispatcher are for classes of actors"),
        ({"run": Supervisor("inner"), "max_attempts": 2}, "max_attempts is for actors and handlers"),
    ],
)
def test_an_invalid_child_of_a_tree_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSupervisor, match="^child ") as caught:
        ChildSpec(**{"run": Worker, "name": "it", **values})
    assert message in str(caught.value)


def test_children_may_come_from_an_iterator_and_are_kept() -> None:
    children = [Worker, ChildSpec(Worker, name="second")]
    supervisor = Supervisor("team", iter(children))  # type: ignore[arg-type]
    assert [spec.known_name for spec in supervisor.specs] == ["Worker", "second"]
    assert [spec.known_name for spec in supervisor.specs] == ["Worker", "second"]


def test_a_child_may_be_given_without_a_spec() -> None:
    inner = Supervisor("inner")
    supervisor = Supervisor("team", [Worker, inner, handler, ChildSpec(Worker, name="other", shutdown=1)])
    assert [(spec.known_name, spec.patience) for spec in supervisor.specs] == [
        ("Worker", 5.0),
        ("inner", "infinity"),
        (None, 5.0),
        ("other", 1),
    ]


def test_the_directive_of_the_most_derived_error_class_wins() -> None:
    supervisor = Supervisor(
        "team", directives={Exception: "stop", OSError: "resume", FileNotFoundError: "escalate"}
    )
    found = [
        supervisor.directive(error()) for error in (KeyError, ConnectionError, FileNotFoundError, SystemExit)
    ]
    assert found == ["stop", "resume", "escalate", "restart"]


@pytest.mark.parametrize(
    ("reset_after", "within", "expected"), [(None, 30, 30), (None, 1, 10), (5.0, 30, 5.0), (0.0, 30, 0.0)]
)
def test_the_back_off_starts_over_after_a_quiet_time(
    reset_after: float | None, within: float, expected: float
) -> None:
    backoff = Backoff(max=10, reset_after=reset_after)
    assert Supervisor("team", within=within, backoff=backoff).quiet_after == expected
