"""Errors as the API answers them: a status code and problem details, by RFC 9457."""

from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from uno_actors.errors import (
    AmbiguousStream,
    CallerError,
    InvalidAggregateId,
    InvalidReset,
    InvalidTopic,
    NoDeadLetter,
    SeveralLogs,
    SystemNotRunning,
    UnknownHandler,
    UnoError,
    WorldError,
    describe,
)
from uno_actors.ops.api.endpoint import Refused

STATUSES: tuple[tuple[type[UnoError], int], ...] = (
    (UnknownHandler, 404),
    (NoDeadLetter, 404),
    (InvalidReset, 422),
    (InvalidTopic, 422),
    (InvalidAggregateId, 422),
    (AmbiguousStream, 409),
    (SeveralLogs, 409),
    (SystemNotRunning, 503),
    (WorldError, 503),
    (CallerError, 422),
)
"""The first class that fits decides."""


def problem(status: int, detail: str) -> dict[str, Any]:
    """Problem details."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def problem_of(error: Exception) -> dict[str, Any]:
    """Problem details of an error that an endpoint raised."""
    match error:
        case Refused():
            return problem(error.status, error.detail)
        case ValidationError():
            faults = [
                f"{'.'.join(map(str, each['loc'])) or 'the request'}: {each['msg']}"
                for each in error.errors(include_url=False, include_input=False)
            ]
            return problem(422, "; ".join(faults[:10]))
        case UnoError():
            status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
            return problem(status, str(error))
        case ValueError():
            return problem(422, describe(error))
    return problem(500, describe(error))
