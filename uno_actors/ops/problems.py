"""Errors as the API of the live page answers them: problem details, by the table of `uno_actors.problems`.

Operators get the text of each error, which a client of a service does not: it says what to do.
"""

from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from uno_actors.errors import AmbiguousStream, SeveralLogs, UnoError, describe
from uno_actors.ops.api.endpoint import Refused
from uno_actors.problems import problem_of as answer_to
from uno_actors.problems import type_of


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
        case AmbiguousStream() | SeveralLogs():
            return problem(409, str(error))
        case UnoError() if (found := answer_to(error)) is not None:
            return problem(found.status, str(error)) | {"type": type_of(error), "title": found.title}
        case ValueError() if not isinstance(error, UnoError):
            return problem(422, describe(error))
    return problem(500, describe(error))
