"""Every error of the library has an answer over HTTP, or is a 500 on purpose."""

import json
from collections.abc import Iterator

import pytest

import uno_actors
import uno_actors.config.simulation
from uno_actors import (
    AskTimeout,
    CommandRejected,
    InternalError,
    OutcomeUnknown,
    StoreUnavailable,
    UnknownCommand,
    UnoError,
    WorldError,
)
from uno_actors.problems import FAULTS, PROBLEMS, body_of, headers_of, problem_of, type_of

PUBLIC = sorted(
    name
    for name in uno_actors.__all__
    if isinstance(kind := getattr(uno_actors, name), type) and issubclass(kind, UnoError)
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_error_is_answered_or_a_500_on_purpose(name: str) -> None:
    assert (getattr(uno_actors, name) in PROBLEMS) != (name in FAULTS)


def test_the_list_of_faults_names_errors_that_exist() -> None:
    assert sorted(FAULTS - set(PUBLIC)) == []


@pytest.mark.parametrize(
    "kind", [kind for kind in PROBLEMS if issubclass(kind, WorldError)], ids=lambda kind: kind.__name__
)
def test_what_may_succeed_later_says_when_and_repeats_no_text_of_the_error(kind: type[UnoError]) -> None:
    problem = PROBLEMS[kind]
    assert problem.status in (503, 504)
    assert problem.detail
    assert problem.retry_after


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
def test_every_answer_is_one_that_openapi_shows(kind: type[UnoError]) -> None:
    assert PROBLEMS[kind].status in (404, 409, 422, 503, 504)


class NotEnough(CommandRejected):
    pass


class Flooded(WorldError):
    pass


class Broken(InternalError):
    pass


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotEnough("two left"), 409, "urn:uno-actors:command-rejected"),
        (Flooded("water"), 503, "urn:uno-actors:world-error"),
        (Broken("?"), None, "about:blank"),
        (UnknownCommand("Account", object(), []), None, "about:blank"),
        (ValueError("?"), None, "about:blank"),
    ],
)
def test_a_subclass_is_answered_as_its_base(error: Exception, status: int | None, kind: str) -> None:
    problem = problem_of(error)
    assert (None if problem is None else problem.status) == status
    assert type_of(error) == kind


def answer(error: Exception, key: str | None = None) -> dict[str, object]:
    problem = problem_of(error)
    assert problem is not None
    body = body_of(error, problem, key)
    json.dumps(body, ensure_ascii=False).encode()
    return body


def test_a_refusal_shows_its_reason() -> None:
    assert answer(CommandRejected("no money")) == {
        "type": "urn:uno-actors:command-rejected", "title": "Command rejected", "status": 409, "detail": "no money",
    }  # fmt: skip


class Mute(CommandRejected):
    def __init__(self) -> None:
        self.reason = Unprintable()  # type: ignore[assignment]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [CommandRejected("\ud800" + "x" * 9_000), Mute()], ids=["invalid Unicode", "no text"]
)
def test_a_reason_that_cannot_be_shown_as_it_is_makes_no_new_failure(error: CommandRejected) -> None:
    assert len(str(answer(error)["detail"])) < 2_100


def test_a_store_that_fails_says_nothing_about_itself() -> None:
    error = StoreUnavailable("postgresql://db.internal/bank", "password of bank refused")
    assert "internal" not in str(answer(error))
    problem = problem_of(error)
    assert problem is not None
    assert headers_of(problem) == {"Retry-After": "5"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutcomeUnknown("append", "no answer", "k1", 7), 503),
        (AskTimeout("Account<a>", "Deposit", 1, started=True, doing=""), 504),
    ],
    ids=["outcome unknown", "timeout"],
)
def test_a_command_that_may_have_taken_effect_comes_with_the_key_to_repeat_it(
    error: Exception, status: int
) -> None:
    body = answer(error, key="k1")
    assert (body["status"], body["idempotency_key"]) == (status, "k1")
    assert "idempotency_key" not in answer(error)
    assert "Look before you send it again" in str(answer(error)["detail"])


def test_a_command_that_was_withdrawn_in_time_had_no_effect() -> None:
    body = answer(AskTimeout("Account<a>", "Deposit", 1, started=False, doing=""), key="k1")
    assert (body["status"], body["detail"]) == (504, "Nothing was recorded. Send the request again later.")
    assert "idempotency_key" not in body


def subclasses(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_errors_of_the_library_that_are_not_public_have_an_answer_by_their_base() -> None:
    ours = [kind for kind in subclasses(UnoError) if kind.__module__.startswith("uno_actors")]
    assert len(ours) > len(PUBLIC) / 2
    for kind in ours:
        assert any(base in PROBLEMS or base.__name__ in FAULTS for base in kind.__mro__), kind
