"""Records as rows of a table, or as JSON lines, printed while they are read."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from uno_actors.cli.record_lines import readable_fields
from uno_actors.cli.terminal import new_console, say_json, seconds_of
from uno_actors.printable import json_value, printable
from uno_actors.store.codec import Record, read_payload
from uno_actors.store.records import StoredRecord


async def show_records(records: AsyncGenerator[StoredRecord], limit: int | None, *, as_json: bool) -> None:
    """Print up to ``limit`` of ``records``, each as soon as it was read."""
    show = _print_line if as_json else _Rows(new_console()).show
    if limit == 0:
        return
    shown = 0
    async with aclosing(records) as each:
        async for stored in each:
            show(stored)
            shown += 1
            if shown == limit:
                return


def _print_line(stored: StoredRecord) -> None:
    say_json(readable_fields(stored))


class _Rows:
    """A table that is printed while it grows. A terminal gets rows of its width, a pipe gets them whole."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cut = console.is_terminal
        width = max(console.width, 60)
        self._widths = (8, 19, (width - 36) // 4, (width - 28) // 3)
        self._last = width - sum(self._widths) - 2 * len(self._widths)
        self._began = False

    def show(self, stored: StoredRecord) -> None:
        if not self._began:
            self._began = True
            self._row(["POSITION", "TIME (UTC)", "EVENT", "AGGREGATE", "PAYLOAD"], "bold")
        record = stored.record
        of = (
            "-"
            if record.stream is None
            else f"{record.stream.aggregate_type}<{record.aggregate_id}@{record.aggregate_version}>"
        )
        when = seconds_of(record.timestamp)
        self._row([f"{stored.position:>8}", when, record.event_type, of, _payload(record)], None)

    def _row(self, cells: list[str], style: str | None) -> None:
        *first, last = [printable(cell) for cell in cells]
        line = "  ".join([*map(self._fitted, first, self._widths), self._cut_to(last, self._last)])
        self._console.print(line.rstrip(), style=style, soft_wrap=True)

    def _fitted(self, text: str, width: int) -> str:
        text = self._cut_to(text, width)
        return text + " " * (width - cell_len(text))

    def _cut_to(self, text: str, width: int) -> str:
        if not self._cut or cell_len(text) <= width:
            return text
        return set_cell_size(text, width - 1).rstrip() + "…"


def _payload(record: Record) -> str:
    fields = read_payload(record)
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    return (
        json.dumps(json_value(value), ensure_ascii=False)
        if isinstance(value, (str, dict, list))
        else str(value)
    )
