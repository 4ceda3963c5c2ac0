"""The store a command works on: its options ``--store``, ``--config`` and ``--tenant``, and what opens it."""

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.terminal import in_utf8, reader_has_gone
from uno_actors.config.reader import control_key, load_system
from uno_actors.errors import CallerError
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.partitions import whole_name
from uno_actors.printable import printable
from uno_actors.rehearsal.program import NotAProgram, Program, is_file, program_of
from uno_actors.store.opening import open_store
from uno_actors.store_urls import without_password
from uno_actors.system.control_socket import key_of
from uno_actors.tenants import is_template, tenants_on_disk, url_of_tenant

Url = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", metavar="URL", envvar="UNO_ACTORS_STORE", help="The store, such as lmdb:PATH."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Use the store of this configuration file."),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="NAME",
        envvar="UNO_ACTORS_TENANT",
        help="The tenant, if the store's URL is that of many.",
        callback=in_utf8,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Limit = Annotated[int | None, typer.Option(min=0, help="Maximum number.")]
Topic = Annotated[str | None, typer.Option(help="Topic pattern, such as a.* or a.b.>", callback=in_utf8)]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Topic pattern, such as a.* or a.b.>; repeatable.", callback=in_utf8),
]
EventTypes = Annotated[
    list[str] | None, typer.Option("--event", help="Event type; repeatable.", callback=in_utf8)
]
AggregateType = Annotated[str | None, typer.Option("--type", help="Type of the aggregate.", callback=in_utf8)]
Correlation = Annotated[str | None, typer.Option("--correlation", help="Correlation id.", callback=in_utf8)]
AggregateId = Annotated[str, typer.Argument(metavar="ID", help="Id of the aggregate.", callback=in_utf8)]
TypeIfSeveral = Annotated[
    str | None,
    typer.Option("--type", help="Type of the aggregate, if several types have this id.", callback=in_utf8),
]

Command = Callable[..., Coroutine[Any, Any, None]]


NAMES_WITHIN = 2.0
"""Maximum seconds in which a shell waits for names to complete."""


MOST_TENANTS = 10
"""Names of tenants that an error lists."""


class Refused(CallerError):
    """A command that would do harm, or that has nothing to work on."""


def loaded_program(sources: Sequence[str]) -> Program:
    """The program in a configuration file, or in modules, which are found from the working directory.

    Raises:
        InvalidConfig: The configuration file has faults.
        BadParameter: A module cannot be imported, or files and modules are mixed.
    """
    if not any(map(is_file, sources)):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return program_of(sources)
    except NotAProgram as error:
        raise typer.BadParameter(printable(str(error))) from None


def has_effect(context: typer.Context, condition: bool, why_not: str, *names: str) -> None:
    """Refuse options that the user has given and that mean nothing beside the others.

    Args:
        context: Of the command.
        condition: Whether they have an effect.
        why_not: The reason in words for an error, such as "without --seed".
        names: Of the command's parameters.

    Raises:
        BadParameter: One was given, on the command line.
    """
    if condition:
        return
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"it has no effect {why_not}", param_hint=parameter.opts[0])


def of_tenant(url: str, tenant: str | None) -> str:
    """The URL of the store: that of a tenant, if ``url`` is that of many.

    Raises:
        BadParameter: A tenant is not named, or is named where there are none.
        InvalidTenant: No tenant can have this name.
        InvalidStoreUrl: Tenants would share the store.
    """
    if is_template(url):
        if tenant is None:
            found = tenants_on_disk(url) or []
            known = f" On disk are: {', '.join(found[:MOST_TENANTS])}" if found else ""
            more = f" and {len(found) - MOST_TENANTS} more" * (len(found) > MOST_TENANTS)
            shown = without_password(url)
            raise typer.BadParameter(f"{shown} is that of many tenants: name one by --tenant.{known}{more}")
        return url_of_tenant(url, tenant)
    if tenant is not None:
        raise typer.BadParameter(
            f"--tenant is for the stores of many tenants, whose URL has {{tenant}}; this one is {without_password(url)}"
        )
    return url


def with_url(command: Command) -> Callable[..., None]:
    """Make a typer command of a coroutine function, whose parameter ``url`` the user gives by --store or --config.

    A command that looks for running systems has a parameter ``key``, too; see `uno_actors.system.control_socket`. The
    other parameters become the command's own options and arguments.
    """
    parameters = inspect.signature(command).parameters
    wants_key = "key" in parameters
    own = [given for name, given in parameters.items() if name not in ("url", "key")]
    options = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        inspect.Parameter("store_url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Url),
        inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile),
        inspect.Parameter("tenant", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Tenant),
        *[given.replace(kind=inspect.Parameter.KEYWORD_ONLY) for given in own],
    ]

    @wraps(command)
    def run(
        context: typer.Context, store_url: str | None, config: Path | None, tenant: str | None, **given: Any
    ) -> None:
        try:
            url = of_tenant(_chosen(context, store_url, config), tenant)
            if wants_key:
                given["key"] = key_of(url) if config is None else control_key(config, tenant)
            asyncio.run(command(url, **given))
        except BrokenPipeError:
            raise reader_has_gone() from None

    _declare(run, options)
    return run


def with_store(command: Command) -> Callable[..., None]:
    """The same for a command that works on an open store: its parameter ``store``.

    The store must exist. It is closed when the command ends, even with an error. A command that needs the store's URL
    for its messages has a parameter ``url``, too.
    """
    parameters = inspect.signature(command).parameters
    wants_url = "url" in parameters

    @wraps(command)
    async def run(url: str, **given: Any) -> None:
        async with open_store(url, create=False) as store:
            await command(store, **given, **({"url": url} if wants_url else {}))

    own = [given for name, given in parameters.items() if name != "store"]
    _declare(run, own)
    return with_url(run)


def handler_names(context: typer.Context, incomplete: str) -> list[str]:
    """The handlers of the store that is named on the command line so far, for the completion of shells."""

    async def names(url: str) -> list[str]:
        async with asyncio.timeout(NAMES_WITHIN), open_store(url, create=False) as store:
            positions = await HandlerControl(store).positions()
        return sorted({whole_name(name) for name in positions})

    given = context.params
    try:
        config: Path | None = given.get("config")
        url = given.get("store_url") if config is None else load_system(config).url
        found = asyncio.run(names(of_tenant(url, given.get("tenant")))) if url else []
    except Exception:  # noqa: BLE001 - a shell that completes shows no errors
        return []
    return [name for name in found if name.startswith(incomplete) and name.isprintable()]


def _declare(function: Any, parameters: list[inspect.Parameter]) -> None:
    """Let typer see ``function`` with these parameters."""
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {given.name: given.annotation for given in parameters}


def _chosen(context: typer.Context, store_url: str | None, config: Path | None) -> str:
    """The URL of the store that was named on the command line, or else by the environment.

    Raises:
        BadParameter: The store is named twice, or not at all.
        InvalidConfig: The configuration file does not say what its store is.
    """
    if config is None:
        if store_url is None:
            raise typer.BadParameter("name the store by --store URL, --config FILE or UNO_ACTORS_STORE")
        return store_url
    source = context.get_parameter_source("store_url")
    if source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("--store and --config exclude each other: give one of them")
    return load_system(config).url
