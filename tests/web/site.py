"""A Django project in one file, that the tests start in real servers. Environment variables say which system it has."""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from tests.web.theatre import CountSeats, SellSeats, Theatre, failing_system
from uno_actors import ActorSystem

STORE = os.environ.get("STORE", "memory:")


def make() -> ActorSystem:
    if "BREAKS" in os.environ:
        return failing_system(STORE)
    return ActorSystem(STORE, aggregates=[Theatre], handlers=[])


if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG="RELOADS" in os.environ,
        INSTALLED_APPS=["uno_actors.django"],
        MIDDLEWARE=["uno_actors.django.middleware.ProblemDetailsMiddleware"],
        ROOT_URLCONF="tests.web.site",
        SECRET_KEY="of the tests",  # noqa: S106
        UNO_ACTORS={
            "SYSTEM": "tests.web.site.make",
            "START": "first request" if "EAGER" in os.environ else "first use",
        },
    )
    application = get_wsgi_application()


def process(request: HttpRequest) -> HttpResponse:
    return HttpResponse(os.getpid())


def state(request: HttpRequest) -> JsonResponse:
    from uno_actors.django import is_started

    return JsonResponse({"started": is_started()})


def sell(request: HttpRequest, house: str) -> JsonResponse:
    from uno_actors.django import system

    command = SellSeats(seats=int(request.GET["seats"]), command_id=request.headers.get("Idempotency-Key"))
    return JsonResponse({"free": system().aggregate(Theatre, house).ask(command).get(timeout=10)})


def look(request: HttpRequest, house: str) -> JsonResponse:
    from uno_actors.django import system

    return JsonResponse({"free": system().aggregate(Theatre, house).ask(CountSeats()).get(timeout=10)})


urlpatterns = [
    path("process", process),
    path("state", state),
    path("theatres/<str:house>/sales", sell),
    path("theatres/<str:house>", look),
]

if "IN_MASTER" in os.environ:  # as a program does that uses the system when it is imported
    from uno_actors.django import system

    system().aggregate(Theatre, "a").ask(SellSeats(seats=1)).get(timeout=10)

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
