"""``uno-actors cluster``: the nodes that work on a store, and how the work is divided among them."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.opening import Json, Tenant, of_tenant
from uno_actors.cli.terminal import FOLDED, NUMBERS, WHOLE, new_table, number, say, say_json, say_tables
from uno_actors.clock import SystemClock
from uno_actors.cluster.report import NodeReport, observe, shards_by_node, skew
from uno_actors.cluster.settings import Cluster
from uno_actors.config.reader import load_tables
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.ops.api.cluster import held
from uno_actors.printable import printable
from uno_actors.store.opening import open_store
from uno_actors.system.announcement import CLUSTER
from uno_actors.units import rounded

ROUTED = {"LOCAL": "local", "SENT": "sent", "SERVED": "served", "AGAIN": "sent_again"}
LOANS = {"LENT": "lent", "BORROWED": "borrowed"}
"""Columns of what a node has routed and what it has on loan, with the names of the counters."""

Place = Annotated[
    str, typer.Argument(metavar="FILE|URL", help="A configuration file, or the URL of a store.")
]


def cluster(place: Place, tenant: Tenant = None, as_json: Json = False) -> None:
    """Show the nodes of a cluster: addresses, roles, shards of aggregates, handlers, time of a hop, routed commands.

    Nodes of other machines answer too where their link can be reached from here. Exit code 1 if a node does not answer.
    """
    url, settings = _named(place)
    url = of_tenant(url, tenant)
    reports, handlers = asyncio.run(_found(url, settings))
    members = [report.member for report in reports]
    shards = shards_by_node(members)
    if as_json:
        for report in reports:
            say_json(_as_data(report, shards, handlers))
    elif not reports:
        say("no node works on the store")
    else:
        say_tables(_nodes(reports), *_divided(reports, shards, handlers))
        for aggregate_type, owned in shards.items():
            say()
            say(
                f"{aggregate_type}: {len(owned)} nodes own shards, the fullest {skew(owned, members):.0%} more than"
                " its share"
            )
    raise typer.Exit(any(report.unreachable is not None for report in reports))


def _named(place: str) -> tuple[str, Cluster]:
    """The URL of the store and the settings of its nodes."""
    if ":" in place and not Path(place).exists():
        return place, Cluster()
    config = load_tables(place, "system", "cluster")
    return config.system.url, config.cluster or Cluster()


async def _found(url: str, settings: Cluster) -> tuple[list[NodeReport], list[HandlerInfo]]:
    async with open_store(url, create=False) as store:
        reports = await observe(store, settings, SystemClock(), CLUSTER)
        return reports, await HandlerControl(store).handlers()


def _as_data(
    report: NodeReport, shards: dict[str, dict[str, int]], handlers: list[HandlerInfo]
) -> dict[str, Any]:
    data = asdict(report)
    data["shards"] = {kind: owned.get(report.member.id, 0) for kind, owned in shards.items()}
    data["handlers"] = held(report.member.name, handlers)
    return data


def _nodes(reports: list[NodeReport]) -> Any:
    table = new_table(
        {"NODE": FOLDED, "ADDRESS": FOLDED, "ROLES": FOLDED, "STATE": WHOLE, "VERSION": WHOLE, "UP": NUMBERS}
        | {"HOP": NUMBERS}
        | dict.fromkeys(ROUTED | LOANS, NUMBERS)
    )
    for report in reports:
        member = report.member
        found = report.statistics
        counters = [
            number(None if found is None else getattr(found, name)) for name in (ROUTED | LOANS).values()
        ]
        table.add_row(
            printable(member.name),
            printable((member.address or "-").partition("#")[0]),
            ", ".join(map(printable, member.roles)) or "-",
            _state(report),
            printable(member.version),
            rounded(max(0.0, time.time() - member.started)),
            "-" if report.hop is None else f"{report.hop * 1000:.1f} ms",
            *counters,
        )
    return table


def _state(report: NodeReport) -> str:
    if report.unreachable is not None:
        return printable(f"no answer: {report.unreachable}")
    return "leaving" if report.member.leaving else "up"


def _divided(
    reports: list[NodeReport], shards: dict[str, dict[str, int]], handlers: list[HandlerInfo]
) -> list[Any]:
    """What each node owns and runs."""
    table = new_table(
        {"NODE": FOLDED} | dict.fromkeys(map(printable, shards), NUMBERS) | {"HANDLERS": FOLDED}
    )
    for report in reports:
        owned = [number(shards[kind].get(report.member.id, 0)) for kind in shards]
        runs = ", ".join(map(printable, held(report.member.name, handlers)))
        table.add_row(printable(report.member.name), *owned, runs or "-")
    return [table]
