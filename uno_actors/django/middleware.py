"""Errors of views as problem details.

MIDDLEWARE = [..., "uno_actors.django.middleware.ProblemDetailsMiddleware"]
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from uno_actors.errors import describe
from uno_actors.logs import get_logger
from uno_actors.problems import MEDIA_TYPE, body_of, headers_of, problem_of


class ProblemDetailsMiddleware:
    """Answers the errors of uno_actors that a view raises; see `uno_actors.problems`. All others stay Django's.

    A request that may be sent again is answered with its own ``Idempotency-Key``, which the view makes the
    ``command_id``.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """The response of the view."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> JsonResponse | None:
        """The answer to an error of a view; ``None`` to leave it to Django."""
        problem = problem_of(error)
        if problem is None:
            return None
        if problem.status >= 500:
            get_logger().warning(
                "request failed", method=request.method, path=request.path, error=describe(error)
            )
        body = body_of(error, problem, request.headers.get("Idempotency-Key"))
        return JsonResponse(body, status=problem.status, headers=headers_of(problem), content_type=MEDIA_TYPE)
