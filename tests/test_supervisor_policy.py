"""The decisions of a supervisor, rule by rule, with the examples of OTP's documentation, and against a simple model."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import Backoff, ChildSpec, Supervisor
from uno_actors.supervision.policy import (
    Decision,
    GiveUp,
    Nothing,
    RestartGroup,
    Resume,
    ShutDown,
    SupervisorState,
    Terminate,
)
from uno_actors.supervision.spec import RestartType, Strategy

BACKOFF = Backoff(initial=1, max=8, factor=2, jitter=0)
ERROR = ValueError("broken")


def nothing(event: object) -> None: ...


def state(*children: tuple[str, RestartType] | ChildSpec, **rules: Any) -> SupervisorState:
    specs = [
        child if isinstance(child, ChildSpec) else ChildSpec(nothing, name=child[0], restart=child[1])
        for child in children
    ]
    made = SupervisorState(Supervisor("team", specs, **{"backoff": BACKOFF, **rules}))
    for spec in specs:
        made = made.added(spec.name or "", spec, 0.0)
    return made


def permanent(*names: str, **rules: Any) -> SupervisorState:
    return state(*((name, "permanent") for name in names), **rules)


def fail(
    it: SupervisorState, name: str, now: float = 0.0, error: BaseException = ERROR
) -> tuple[SupervisorState, Decision]:
    return it.failed(name, error, now, 0.0)


def restarted(it: SupervisorState, decision: Decision, now: float) -> SupervisorState:
    """Note that the whole group has started again."""
    assert isinstance(decision, RestartGroup)
    for name in decision.start:
        it = it.started(name, now)
    return it


# --- strategies ---


@pytest.mark.parametrize(
    ("strategy", "failing", "stop", "start"),
    [
        ("one_for_one", "b", ("b",), ("b",)),  # only that process is restarted
        (
            "one_for_all",
            "b",
            ("d", "c", "b", "a"),
            ("a", "b", "c", "d"),
        ),  # all others, in reverse start order
        ("one_for_all", "a", ("d", "c", "b", "a"), ("a", "b", "c", "d")),
        ("rest_for_one", "b", ("d", "c", "b"), ("b", "c", "d")),  # those after it in start order
        ("rest_for_one", "d", ("d",), ("d",)),
        ("rest_for_one", "a", ("d", "c", "b", "a"), ("a", "b", "c", "d")),
    ],
)
def test_which_children_are_restarted_with_a_failed_one(
    strategy: Strategy, failing: str, stop: tuple[str, ...], start: tuple[str, ...]
) -> None:
    it, decision = fail(permanent("a", "b", "c", "d", strategy=strategy), failing)
    assert decision == RestartGroup(stop, start, 1.0)
    assert {child.name for child in it.children if child.status == "restarting"} == set(start)


# --- restart types ---


@pytest.mark.parametrize(
    ("restart", "fails", "expected", "status"),
    [
        ("permanent", True, RestartGroup(("a",), ("a",), 1.0), "restarting"),  # always restarted
        ("permanent", False, RestartGroup(("a",), ("a",), 1.0), "restarting"),
        ("transient", True, RestartGroup(("a",), ("a",), 1.0), "restarting"),  # only if it ends abnormally
        ("transient", False, Terminate("a"), "stopped"),
        ("temporary", True, Terminate("a"), None),  # never restarted, and forgotten
        ("temporary", False, Terminate("a"), None),
    ],
)
def test_when_a_child_is_restarted(
    restart: RestartType, fails: bool, expected: Decision, status: str | None
) -> None:
    before = state(("a", restart))
    it, decision = fail(before, "a") if fails else before.ended("a", 0.0, 0.0)
    assert decision == expected
    assert [child.status for child in it.children] == ([] if status is None else [status])


def test_a_temporary_child_is_forgotten_as_a_bystander_too() -> None:
    it, decision = fail(
        state(("a", "permanent"), ("b", "temporary"), ("c", "transient"), strategy="one_for_all"), "a"
    )
    assert decision == RestartGroup(("c", "b", "a"), ("a", "c"), 1.0)
    assert it.names == ("a", "c")


# --- the budget ---


def crash(it: SupervisorState, at: list[float], name: str = "a") -> tuple[list[str], SupervisorState]:
    """The decisions after crashes at these moments, each after the restart from the one before."""
    kinds = []
    for now in at:
        it, decision = fail(it, name, now)
        kinds.append(type(decision).__name__)
        if isinstance(decision, RestartGroup):
            it = restarted(it, decision, now)
    return kinds, it


@pytest.mark.parametrize(
    ("max_restarts", "within", "at", "expected"),
    [
        # Intensity 2 in 3,600 s: crashes 1 and 2 restart, the third gives up.
        (2, 3600, [1, 2, 3], ["RestartGroup", "RestartGroup", "GiveUp"]),
        (0, 1, [0], ["GiveUp"]),  # 0 gives up at the first
        (1, 5, [0, 5], ["RestartGroup", "GiveUp"]),  # OTP's defaults; the boundary counts
        (1, 5, [0, 5.001], ["RestartGroup", "RestartGroup"]),  # beyond it, it has slid out
        (None, 1, [0] * 50, ["RestartGroup"] * 50),  # no limit
        # A burst of 5 is let through, then a long-term rate of one a second at the most.
        (5, 5, [0, 0, 0, 0, 0, 5.1, 10.3], ["RestartGroup"] * 7),
    ],
)
def test_the_supervisor_gives_up_when_its_budget_is_used_up(
    max_restarts: int | None, within: float, at: list[float], expected: list[str]
) -> None:
    assert crash(permanent("a", max_restarts=max_restarts, within=within), at)[0] == expected


def test_with_intensity_4_one_crash_whose_restart_always_fails_ends_the_supervisor() -> None:
    it, decision = fail(permanent("a", max_restarts=4, within=3600), "a")
    attempts = 0
    while not isinstance(decision, GiveUp):
        attempts += 1
        it, decision = it.start_failed("a", 0.0, 0.0)
    assert attempts == 4
    assert decision == GiveUp("a", "failed again after 4 restarts within 3600 s")


def test_one_incident_counts_once_however_many_siblings_it_restarts() -> None:
    it = permanent("a", "b", "c", strategy="one_for_all", max_restarts=1)
    it, _ = fail(it, "b")
    assert len(it.restarts) == 1
    for name in ("a", "c"):  # they failed too, before they could be stopped
        assert fail(it, name) == (it, Nothing())


def test_children_share_a_budget_or_each_has_its_own() -> None:
    shared = permanent("a", "b", max_restarts=1)
    own = permanent("a", "b", max_restarts=1, budget="child")
    for whose, second in ((shared, GiveUp), (own, RestartGroup)):
        it, decision = fail(whose, "a")
        assert isinstance(fail(restarted(it, decision, 0.0), "b")[1], second)
    kinds, _ = crash(own, [0, 1])
    assert kinds == ["RestartGroup", "GiveUp"]


# --- back-off ---


def test_the_back_off_grows_from_failure_to_failure_and_starts_over_after_a_quiet_time() -> None:
    it, delays = permanent("a", max_restarts=None, within=10), []
    for now in (0, 1, 2, 3, 4, 13, 23, 24):
        it, decision = fail(it, "a", now)
        it = restarted(it, decision, now)
        delays.append(decision.delay)  # type: ignore[union-attr]
    assert delays == [1, 2, 4, 8, 8, 8, 1, 2]


def test_failed_starts_wait_longer_each_time() -> None:
    it, decision = fail(permanent("a", max_restarts=None), "a")
    delays = [decision]
    for _ in range(3):
        it, decision = it.start_failed("a", 1000.0, 0.0)
        delays.append(decision)
    assert [decision.delay for decision in delays] == [1, 2, 4, 8]  # type: ignore[union-attr]


def test_a_known_number_of_failures_of_the_same_event_decides_the_delay() -> None:
    it = permanent("a", max_restarts=None)
    for streak, delay in ((2, 4), (0, 1), (1, 2)):
        it, decision = it.failed("a", ERROR, 0.0, 0.0, streak)
        assert isinstance(decision, RestartGroup)
        assert decision.delay == delay
        it = restarted(it, decision, 0.0)


# --- starts that fail ---


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", RestartGroup(("c",), ("c",), 1.0)),
        ("rest_for_one", RestartGroup(("d", "c"), ("c", "d"), 1.0)),  # b has started and stays
        ("one_for_all", RestartGroup(("d", "c", "b", "a"), ("a", "b", "c", "d"), 1.0)),  # all again
    ],
)
def test_a_child_that_fails_to_start_again_is_tried_again(strategy: Strategy, expected: Decision) -> None:
    it, _ = fail(permanent("a", "b", "c", "d", strategy=strategy), "c" if strategy == "one_for_one" else "b")
    if strategy != "one_for_one":
        it = it.started("b", 0.0)
    it = replace(it, children=tuple(replace(child, streak=0) for child in it.children))
    assert it.start_failed("c", 0.0, 0.0)[1] == expected


def test_a_start_that_is_not_awaited_changes_nothing() -> None:
    it, _ = fail(permanent("a"), "a")
    it = it.stopped("a")  # stopped on request in the meantime
    assert it.start_failed("a", 0.0, 0.0) == (it, Nothing())
    assert it.ended("a", 0.0, 0.0) == (it, Nothing())


# --- directives ---


def test_a_directive_decides_by_the_class_of_the_error() -> None:
    it = permanent(
        "a", "b", directives={OSError: "resume", KeyError: "stop", MemoryError: "escalate"}, max_restarts=0
    )
    assert fail(it, "a", error=ConnectionError()) == (it, Resume("a"))
    stopped, decision = fail(it, "a", error=KeyError())
    assert (decision, stopped["a"].status) == (Terminate("a"), "stopped")
    assert fail(it, "a", error=MemoryError())[1] == GiveUp("a", "failed, which escalates")
    assert isinstance(fail(it, "a")[1], GiveUp)  # by its budget


def test_a_child_that_cannot_resume_is_restarted() -> None:
    it = permanent("a", directives={OSError: "resume"})
    assert isinstance(it.failed("a", OSError(), 0.0, 0.0, can_resume=False)[1], RestartGroup)


# --- significant children ---


def significant(*restarts: RestartType, auto_shutdown: str) -> SupervisorState:
    specs = [
        ChildSpec(nothing, name=name, restart=restart, significant=True)
        for name, restart in zip("abc", restarts, strict=False)
    ]
    return state(*specs, ("other", "permanent"), auto_shutdown=auto_shutdown)


def test_any_significant_child_that_ends_by_itself_ends_the_supervisor() -> None:
    it = significant("transient", "temporary", auto_shutdown="any_significant")
    assert it.ended("a", 0.0, 0.0)[1] == ShutDown("a")
    assert it.ended("b", 0.0, 0.0)[1] == ShutDown("b")
    assert fail(it, "b")[1] == ShutDown("b")  # temporary ones end by themselves however they end
    assert isinstance(fail(it, "a")[1], RestartGroup)  # transient ones only without a failure


def test_the_last_significant_child_that_ends_by_itself_ends_the_supervisor() -> None:
    it = significant("transient", "transient", auto_shutdown="all_significant")
    it, decision = it.ended("b", 0.0, 0.0)
    assert decision == Terminate("b")
    assert it.ended("a", 0.0, 0.0)[1] == ShutDown("a")


def test_a_significant_child_that_was_stopped_on_request_shuts_nothing_down() -> None:
    it = significant("transient", "transient", auto_shutdown="any_significant").stopped("a")
    assert it["a"].status == "stopped"
    assert it.ended("a", 0.0, 0.0) == (it, Nothing())


# --- any sequence ---

NAMES = ("a", "b", "c", "d")
kinds: st.SearchStrategy[RestartType] = st.sampled_from(["permanent", "transient", "temporary"])
strategies: st.SearchStrategy[Strategy] = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])
happenings = st.lists(
    st.tuples(
        st.sampled_from(["fail", "end", "start", "start fails", "stop"]),
        st.sampled_from(NAMES),
        st.floats(0, 3),
    ),
    max_size=30,
)


@given(strategies, st.tuples(kinds, kinds, kinds, kinds), st.integers(0, 3), happenings)
def test_whatever_happens_the_rules_hold(
    strategy: Strategy,
    restarts: tuple[RestartType, ...],
    budget: int,
    happenings: list[tuple[str, str, float]],
) -> None:
    """Against a model that keeps, in plain sets and lists, the rules of OTP's documentation."""
    it = state(*zip(NAMES, restarts, strict=True), strategy=strategy, max_restarts=budget, within=2.0)
    alive, waiting, incidents, now = list(NAMES), set[str](), list[float](), 0.0
    kind_of = dict(zip(NAMES, restarts, strict=True))
    for what, name, passed in happenings:
        now += passed
        if name not in it.names:
            continue
        running = name in alive
        match what:
            case "start":
                if name in waiting:
                    it, decision = it.started(name, now), Nothing()
                    waiting.discard(name)
                    alive.append(name)
                continue
            case "stop":
                it = it.stopped(name)
                waiting.discard(name)
                alive = [other for other in alive if other != name]
                continue
            case "fail":
                it, decision = fail(it, name, now)
                restarts_it = running and kind_of[name] != "temporary"
            case "end":
                it, decision = it.ended(name, now, 0.0)
                restarts_it = running and kind_of[name] == "permanent"
            case _:
                it, decision = it.start_failed(name, now, 0.0)
                restarts_it = name in waiting
        if not restarts_it:
            assert not isinstance(decision, (RestartGroup, GiveUp))
            if running and what != "start fails":
                alive.remove(name)
                assert isinstance(decision, Terminate)
            continue
        if len([moment for moment in incidents if now - moment <= 2.0]) >= budget:
            assert isinstance(decision, GiveUp)
            return
        incidents.append(now)
        assert isinstance(decision, RestartGroup)
        place = NAMES.index(name)
        group = {"one_for_one": {name}, "one_for_all": set(NAMES), "rest_for_one": set(NAMES[place:])}[
            strategy
        ]
        group &= {*it.names, *decision.stop}
        assert set(decision.stop) == group
        assert list(decision.stop) == sorted(decision.stop, reverse=True)
        assert list(decision.start) == sorted(decision.start)
        assert set(decision.start) == {other for other in group if kind_of[other] != "temporary"}
        waiting |= set(decision.start)
        alive = [other for other in alive if other not in group]
        assert {child.name for child in it.children if child.status == "restarting"} == waiting
