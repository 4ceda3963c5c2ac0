"""Logs go to the standard library as one line, or to structlog if the program has configured it."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from uno_actors.causality import Cause, caused_by
from uno_actors.logs import get_logger


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_an_event_is_one_line_with_its_values_and_what_is_bound(caplog: pytest.LogCaptureFixture) -> None:
    get_logger(handler="mail", supervisor="quick").warning("handler failed", attempt=2)
    (record,) = caplog.records
    assert record.name == "uno_actors"
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "handler failed handler=mail supervisor=quick attempt=2"
    assert record.uno_handler == "mail"  # type: ignore[attr-defined]
    assert record.uno_attempt == 2  # type: ignore[attr-defined]


def test_a_stack_is_printed_below_the_line(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("code holds a thread", stack="  first\n  second", at="there")
    (record,) = caplog.records
    assert record.getMessage() == "code holds a thread at=there\n  first\n  second"
    assert record.uno_stack == "  first\n  second"  # type: ignore[attr-defined]


def test_an_error_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("deep down")
    except ValueError as error:
        get_logger().error("it failed", exc_info=error)
        get_logger().exception("it failed again")
    for record in caplog.records:
        assert record.exc_info is not None
        assert record.exc_info[0] is ValueError
    assert caplog.text.count("ValueError: deep down") == 2


def test_a_percent_sign_is_not_a_format(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("100 % done", rate="5%s")
    assert caplog.messages == ["100 % done rate=5%s"]


def test_values_named_like_attributes_of_the_log_record_do_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    get_logger(name="n", message="m", args="a").warning("fine", msg="x", levelname="y")
    assert caplog.records[0].uno_message == "m"  # type: ignore[attr-defined]
    assert caplog.records[0].levelname == "WARNING"


def test_an_event_below_the_level_costs_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Expensive:
        def __str__(self) -> str:
            raise AssertionError("nobody wanted to see it")

    with caplog.at_level(logging.WARNING, logger="uno_actors"):
        get_logger().info("quiet", value=Expensive())
    assert caplog.records == []


def test_a_program_that_has_configured_structlog_gets_the_events_itself() -> None:
    with structlog.testing.capture_logs() as captured:
        structlog.configure(processors=structlog.get_config()["processors"])
        get_logger(handler="mail").info("handled", position=3)
    assert captured == [{"event": "handled", "handler": "mail", "position": 3, "log_level": "info"}]


def test_a_line_logged_while_a_message_is_handled_has_its_correlation_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caused_by(Cause("order-7", "command-1")):
        get_logger().warning("slow")
        get_logger().warning("other", correlation_id="order-8")
        get_logger().warning("none", correlation_id=None)
    assert caplog.messages == ["slow correlation_id=order-7", "other correlation_id=order-8", "none"]
