"""The final report of the demo: boards and figures as tables, each total beside an independent count.

    python examples/flights/report.py FILE DATA_DIR

shows it for any file that ``ingest.py`` has read.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from audit import Audit, audit
from boards import AirportRow, Boards, CarrierRow
from count import Count, count
from ingest import Progress
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}
CARRIERS = {
    "9E": "Endeavor",
    "AA": "American",
    "AS": "Alaska",
    "B6": "JetBlue",
    "DL": "Delta",
    "EV": "ExpressJet",
    "F9": "Frontier",
    "FL": "AirTran",
    "HA": "Hawaiian",
    "MQ": "Envoy",
    "OO": "SkyWest",
    "UA": "United",
    "US": "US Airways",
    "VX": "Virgin America",
    "WN": "Southwest",
    "YV": "Mesa",
}
LETTERS_SHOWN = 5


class Check(NamedTuple):
    what: str
    expected: int
    found: int

    @property
    def passed(self) -> bool:
        return self.expected == self.found


class Findings(NamedTuple):
    """The final state of the store and of the boards."""

    audit: Audit
    airports: Sequence[AirportRow]
    carriers: Sequence[CarrierRow]


def find(data_dir: Path) -> Findings:
    with Boards(data_dir / "boards.sqlite") as boards:
        return Findings(asyncio.run(audit(data_dir)), boards.airports(), boards.carriers())


def checks(count: Count, found: Findings) -> list[Check]:
    """Each total counted by ``count.py``, beside those in the store and on the boards."""
    audit, airports, carriers = found
    return [
        Check("rows", count.rows, audit.rows),
        Check("aircraft", len(count.aircraft), audit.aircraft),
        Check("without departure", count.without_departure, audit.cancellations),
        Check("without arrival delay", count.without_arrival_delay, audit.without_arrival_delay),
        Check("without tail number", count.without_tail_number, audit.without_tail_number),
        Check("events", count.events, audit.events),
        Check("commands acknowledged", count.events, audit.acknowledged),
        Check("commands rejected", 0, audit.rejected),
        Check("acknowledged, but lost", 0, len(audit.lost)),
        Check("recorded twice", 0, len(audit.twice)),
        Check("dead letters", count.departed_without_arrival_delay, len(audit.dead_letters)),
        Check("lines of the delay board that differ", 0, differing_airports(count, airports)),
        Check("lines of the punctuality board that differ", 0, differing_carriers(count, carriers)),
    ]


def differing_airports(count: Count, board: Sequence[AirportRow]) -> int:
    shown = {row.airport: (row.departed, row.late, row.minutes, row.worst, row.cancelled) for row in board}
    counted = {
        name: (airport.departed, airport.late, airport.minutes, airport.worst, airport.cancelled)
        for name, airport in count.airports.items()
    }
    return len(dict(shown.items() ^ counted.items()))


def differing_carriers(count: Count, board: Sequence[CarrierRow]) -> int:
    shown = {row.carrier: (row.arrived, row.on_time, row.unreported, row.fees) for row in board}
    counted = {
        name: (carrier.arrived, carrier.on_time, carrier.unreported, carrier.fees)
        for name, carrier in count.carriers.items()
    }
    return len(dict(shown.items() ^ counted.items()))


def crash_report(crashed: Audit, total: int) -> RenderableType:
    """The findings after the kill."""
    return Group(
        Text.assemble(
            ("Killed with SIGKILL", "bold red"),
            f" when {crashed.acknowledged:,} of {total:,} commands were acknowledged.",
        ),
        _fact("of these are lost", len(crashed.lost)),
        _fact("events are there twice", len(crashed.twice)),
        Text(f"  · {crashed.unacknowledged:,} more are there, whose acknowledgement was on its way"),
    )


def _fact(what: str, number: int) -> Text:
    return Text.assemble("  ", _tick(passed=not number), f" {number} {what}")


def _tick(*, passed: bool) -> tuple[str, str]:
    return ("✓", "green") if passed else ("✗", "bold red")


def show(console: Console, found: Findings, checked: Sequence[Check], runs: Sequence[Progress] = ()) -> None:
    """Print everything; ``runs`` are the runs before and after the kill, if there was one."""
    tables = [_delay_board(found.airports), _punctuality(found.carriers)]
    tables += [_runs(runs)] if runs else []
    tables += [_dead_letters(found.audit), _totals(checked)]
    for table in tables:
        console.print()
        console.print(table)
    failed = [check.what for check in checked if not check.passed]
    if failed:
        console.print(f"\n[bold red]{len(failed)} totals are wrong:[/] {', '.join(failed)}")
    else:
        console.print("\n[bold green]Everything is there, and once.[/]")


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    """A table with right-aligned columns, except those whose name ends in ``<``."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column.rstrip("<"), justify="left" if column.endswith("<") else "right")
    return table


def _delay_board(airports: Sequence[AirportRow]) -> Table:
    table = _table("Delay board", "airport<", "departed", "cancelled", "late", "mean", "worst", "of<")
    for row in airports:
        number, _, day = row.worst_flight.partition(" ")
        table.add_row(
            f"{row.airport} {AIRPORTS.get(row.airport, '')}",
            f"{row.departed:,}",
            f"{row.cancelled:,}",
            f"{row.late / row.departed:.0%}",
            f"{row.minutes / row.departed:.1f} min",
            f"{row.worst:,} min",
            f"{number}, {datetime.fromisoformat(day):%d %b}",
        )
    return table


def _punctuality(carriers: Sequence[CarrierRow]) -> Table:
    table = _table("Punctuality", "carrier<", "arrived", "on time", "", "<", "unknown", "late fees")
    for row in carriers:
        share = row.on_time / row.arrived
        table.add_row(
            f"{row.carrier} {CARRIERS.get(row.carrier, '')}",
            f"{row.arrived:,}",
            f"{row.on_time:,}",
            f"{share:.0%}",
            Text("█" * round(10 * share), "green" if share >= 0.8 else "yellow"),
            f"{row.unreported or ''}",
            f"${row.fees:,}",
        )
    return table


def _runs(runs: Sequence[Progress]) -> Table:
    table = _table("Runs", "<", "until the kill", "after it")
    lines: list[tuple[str, Callable[[Progress], str]]] = [
        ("commands acknowledged", lambda run: f"{run.sent:,}"),
        ("  of these recorded before, and not again", lambda run: f"{run.known:,}"),
        ("  each second, durable, handlers running", lambda run: f"{run.sent / (run.seconds or 1):,.0f}"),
        ("  for each commit to the disk", lambda run: f"{run.events / (run.commits or 1):,.0f}"),
        ("aircraft activated", lambda run: f"{run.aircraft:,}"),
        ("  events replayed for them", lambda run: f"{run.replayed:,}"),
        ("restarts of handlers", lambda run: f"{run.restarts:,}"),
        ("dead letters", lambda run: f"{run.dead_letters:,}"),
        ("peak memory", lambda run: f"{run.peak_mib:,.0f} MiB"),
    ]
    for what, value in lines:
        table.add_row(what, *map(value, runs))
    return table


def _dead_letters(audit: Audit) -> Table:
    letters = audit.dead_letters
    more = len(letters) - LETTERS_SHOWN
    caption = f"... and {more:,} more like these" if more > 0 else None
    table = _table("Dead letters", "handler<", "position", "tries", "why<", caption=caption)
    for letter in letters[:LETTERS_SHOWN]:
        table.add_row(
            letter.handler,
            f"{letter.position:,}",
            f"{letter.attempts}",
            letter.error.removeprefix("ValueError: "),
        )
    return table


def _totals(checked: Sequence[Check]) -> Table:
    table = _table("Totals", "<", "counted in the file", "found", "<")
    for check in checked:
        tick = Text(*_tick(passed=check.passed))
        table.add_row(check.what, f"{check.expected:,}", f"{check.found:,}", tick)
    return table


def main() -> int:
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} FILE DATA_DIR")
    found = find(Path(sys.argv[2]))
    checked = checks(count(Path(sys.argv[1])), found)
    show(Console(highlight=False), found, checked)
    return not all(check.passed for check in checked)


if __name__ == "__main__":
    sys.exit(main())
