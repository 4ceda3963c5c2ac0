"""Arguments and options that mean something only beside others are refused where those are missing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    ArgumentWithoutEffect,
    Command,
    DomainEvent,
    InvalidSchedule,
    handles,
    open_store,
)
from uno_actors.cli.app import app


class NotedWithoutEffect(DomainEvent):
    pass


class NoteWithoutEffect(Command[None]):
    pass


class NotebookWithoutEffect(AggregateRoot):
    @handles
    def note(self, command: NoteWithoutEffect) -> None:
        self.register_event(NotedWithoutEffect())

    def apply_noted_without_effect(self, event: NotedWithoutEffect) -> None: ...


async def test_a_time_limit_for_handlers_needs_handlers_and_nothing_is_sent_without() -> None:
    async with ActorSystem(aggregates=[NotebookWithoutEffect], handlers=[]) as system:
        note = system.aggregate(NotebookWithoutEffect, "n")
        with pytest.raises(
            ArgumentWithoutEffect, match="wait_timeout=3 has no effect without wait_for=: name the"
        ):
            note.ask(NoteWithoutEffect(), wait_timeout=3)
        assert await system.store.last_position() == 0


async def test_a_position_needs_a_condition() -> None:
    async with open_store("memory:") as store:
        with pytest.raises(ArgumentWithoutEffect, match="after=1 has no effect without unless="):
            await store.append(NotedWithoutEffect(), after=1)
        assert await store.last_position() == 0


async def test_a_time_zone_needs_a_recurring_time() -> None:
    async with ActorSystem(aggregates=[NotebookWithoutEffect], handlers=[]) as system:
        with pytest.raises(InvalidSchedule, match="which is not given"):
            await system.schedule(
                NoteWithoutEffect(), to=(NotebookWithoutEffect, "n"), after=1, tz="Europe/Berlin"
            )


@pytest.mark.parametrize(
    ("words", "option", "why"),
    [
        (["check", "FILE", "--for", "2h"], "--for", "without --simulate"),
        (["check", "FILE", "--seed", "7"], "--seed", "without --simulate"),
        (["events", "schema", "FILE", "--release", "2.0"], "--release", "without --asyncapi"),
        (["dashboard", "FILE", "--link", "--page", "127.0.0.1:1"], "--page", "with --link"),
        (["simulate", "a:b", "--faults", "3"], "--faults", "without --seed"),
        (["simulate", "a:b", "--only-faults", "3"], "--only-faults", "without --seed"),
        (["simulate", "a:b", "--commands", "3"], "--commands", "without --seed"),
        (["simulate", "a:b", "--whole"], "--whole", "without --seed"),
        (["simulate", "a:b", "--seed", "1", "--seeds", "3"], "--seeds", "with --seed"),
        (
            ["simulate", "a:b", "--seed", "1", "--faults", "3", "--only-faults", "1"],
            "--faults",
            "with --only-faults",
        ),
        (["simulate", "a:b", "--seed", "1", "--whole", "--json"], "--whole", "with --json"),
        (["run", "FILE", "--create"], "--create", "name it by --tenant"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_an_option_that_means_nothing_beside_the_others_is_refused(
    words: list[str], option: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[system]\nstore = "memory:"\n')
    given = [str(file) if word == "FILE" else word for word in words]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2, result.output
    assert option in result.output
    assert why in " ".join(result.output.replace("│", " ").split())
