"""The live page of an application's system, mounted in the application."""

from weakref import WeakKeyDictionary

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from uno_actors.fastapi.hosting import Hosted, hosted_of
from uno_actors.ops.application import Allow, Page, app


def add_page(
    application: FastAPI, path: str = "/ops", *, token: str | None = None, allow: Allow | None = None
) -> None:
    """Mount the live page of the system; see `uno_actors.ops.app` for who may see it.

    Args:
        application: The application.
        path: Where the page is.
        token: The token that each request needs; as of `uno_actors.ops.app`.
        allow: A check of your own, in place of a token; as of `uno_actors.ops.app`.
    """
    pages: WeakKeyDictionary[Hosted, Page] = WeakKeyDictionary()

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        hosted = hosted_of(HTTPConnection(scope))
        if hosted not in pages:
            pages[hosted] = app(hosted.system, token=token, allow=allow)
            hosted.call_when_stopping(pages[hosted].close)
        await pages[hosted](scope, receive, send)

    application.mount(path, page)
