"""Three nodes on one PostgreSQL, each with its clients: routed beside unrouted."""

import os
import statistics
from dataclasses import replace

from tests.benchmarks.measuring import Measured
from tests.benchmarks.nodes import Done, Work, measure
from tests.postgres import PostgresServer

ROUNDS = 3


async def side_by_side(work: Work, rounds: int = ROUNDS) -> tuple[list[Done], list[Done]]:
    """Results of both ways, measured in turn on one server, each on a store of its own."""
    server = PostgresServer()
    routed: list[Done] = []
    unrouted: list[Done] = []
    try:
        for _ in range(rounds):
            for results, is_routed in ((unrouted, False), (routed, True)):
                url = await server.new_url()
                done = await measure(replace(work, url=url, routed=is_routed))
                results.append(done)
                print(said(work, is_routed, done), flush=True)
    finally:
        server.remove()
    for done in routed:
        assert not done.errors, f"clients of a cluster saw errors: {dict(done.errors)}"
    return routed, unrouted


def said(work: Work, is_routed: bool, done: Done) -> str:
    """One measurement as a line of text."""
    parts = [
        f"{work.clients}, {work.ids} ids, {'routed' if is_routed else 'unrouted'}: {done.rate:,.0f} commands/s",
        f"median {1000 * done.median:,.1f} ms",
        f"p99 {1000 * done.slow:,.1f} ms",
        f"{1e6 * done.cpu / max(1, done.count):,.0f} us of processors a command",
        f"{done.commits:,} commits",
        f"{done.reruns:,} reruns",
        f"errors {dict(done.errors)}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts)


def rates(results: list[Done]) -> float:
    """The median of the rates."""
    return statistics.median(done.rate for done in results)


async def shared() -> list[Measured]:
    """All clients ask the same 300 aggregates."""
    work = Work(url="", routed=False, clients="shared", ids=300, in_flight=50)
    routed, unrouted = await side_by_side(work)
    quick, slow = [1 / statistics.median(done.slow for done in results) for results in (routed, unrouted)]
    return [
        Measured("commands/s, 3 nodes, 300 shared aggregates", rates(routed), "unrouted", rates(unrouted), 5),
        Measured("  1 / p99", quick, "unrouted", slow, 5),
    ]


async def hot() -> list[Measured]:
    """All clients ask one aggregate, from the moment that their nodes start."""
    work = Work(url="", routed=False, clients="shared", ids=1, in_flight=50)
    routed, unrouted = await side_by_side(work)
    return [Measured("commands/s, 3 nodes, one hot aggregate", rates(routed), "unrouted", rates(unrouted), 3)]


async def sticky() -> list[Measured]:
    """Each node's clients ask aggregates that no other node is asked for."""
    work = Work(url="", routed=False, clients="sticky", ids=300, in_flight=300)
    routed, unrouted = await side_by_side(work)
    return [Measured("commands/s, 3 nodes, sticky clients", rates(routed), "unrouted", rates(unrouted), 0.8)]
