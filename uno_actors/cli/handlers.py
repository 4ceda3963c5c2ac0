"""``uno-actors handlers``: how handlers are, and what they are to do.

Requests are kept in the store: a running system carries them out within half a second, any other when it starts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from uno_actors.cli.store import Json, Url, opened
from uno_actors.cli.terminal import in_utf8, number, say, say_json, table_console
from uno_actors.errors import InvalidReset
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.spec import Start
from uno_actors.printable import counted, printable

app = typer.Typer(help="Look at handlers, pause, resume and reset them.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Of the handlers.", callback=in_utf8)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the handler.", callback=in_utf8)]


def _place(text: str) -> Start:
    if text in ("earliest", "latest"):
        return text  # type: ignore[return-value]
    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is none of: earliest, latest, a position, a time such as 2024-05-01T12:00"
        ) from None


@app.command("list")
def list_handlers(url: Url, as_json: Json = False) -> None:
    """List the handlers that have run on the store: position, lag, state, failures, dead letters."""

    async def show() -> None:
        async with opened(url) as store:
            found = await HandlerControl(store).handlers()
        if as_json:
            for info in found:
                say_json(asdict(info))
            return
        table = Table(box=None, pad_edge=False)
        to_come = [_to_come(info) for info in found]
        for title in ("HANDLER", "STATE", "POSITION", "BEHIND", "FAILURES", "LETTERS"):
            is_text, is_name = title in ("HANDLER", "STATE"), title == "HANDLER"
            table.add_column(
                title, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_name
            )
        if any(to_come):
            table.add_column("TO COME")
        for info, asked in zip(found, to_come, strict=True):
            numbers = (info.position, info.lag, info.failures, info.dead_letters)
            table.add_row(printable(info.name), info.state, *map(number, numbers), *[asked] * any(to_come))
        table_console().print(table)

    asyncio.run(show())


def _to_come(info: HandlerInfo) -> str:
    """What was asked for and is not done yet."""
    asked = []
    if info.paused and info.state != "paused":
        asked.append("pause")
    if info.reset_to is not None:
        asked.append(f"reset to {info.reset_to}")
    if info.retries:
        asked.append(f"retry {info.retries}")
    return ", ".join(asked)


@app.command()
def pause(url: Url, names: Names) -> None:
    """Have handlers handle nothing until they are resumed, also when they are started again."""
    _for_each(url, names, HandlerControl.pause, "paused")


@app.command()
def resume(url: Url, names: Names) -> None:
    """Have paused handlers go on where they stand."""
    _for_each(url, names, HandlerControl.resume, "resumed")


def _for_each(
    url: str, names: list[str], ask: Callable[[HandlerControl, str], Awaitable[None]], done: str
) -> None:
    async def run() -> None:
        async with opened(url) as store:
            control = HandlerControl(store)
            await control.check(*names)
            for name in names:
                await ask(control, name)
                say(f"{name}: {done}")

    asyncio.run(run())


@app.command()
def reset(
    url: Url,
    name: Name,
    to: Annotated[str, typer.Option(metavar="PLACE", help="earliest, latest, a position, or a time.")],
) -> None:
    """Have a handler go on from another place; a projection is built anew from the earliest event."""
    _reset(url, name, _place(to), back_only=False)


@app.command()
def replay(
    url: Url,
    name: Name,
    since: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="earliest, a position, or a time.")
    ] = "earliest",
) -> None:
    """Have a handler handle again what it has handled, from the first event on or from another place behind it."""
    _reset(url, name, _place(since), back_only=True)


def _reset(url: str, name: str, to: Start, *, back_only: bool) -> None:
    async def run() -> None:
        async with opened(url) as store:
            control = HandlerControl(store)
            await control.check(name)
            before = next(info for info in await control.handlers() if info.name == name)
            if back_only and (place := await control.place(to)) > before.position:
                raise InvalidReset(
                    f"{name} has come to position {before.position} only, and has nothing to replay after {place}"
                )
            position = await control.reset(name, to)
        say(f"{name}: goes on after position {position}{_difference(before, position)}")

    asyncio.run(run())


def _difference(before: HandlerInfo, position: int) -> str:
    if before.view is not None:
        return f", with a new view beside {before.view} until it has caught up"
    count = position - before.position
    if not count:
        return ", where it stands"
    return f": {counted(abs(count), 'position')} {'never' if count > 0 else 'once more'}"
