"""``manage.py uno_actors``: the command line ``uno-actors``, with the models of the project loaded."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from uno_actors.cli.app import main
from uno_actors.django.configuration import Configuration

STORE = "UNO_ACTORS_STORE"
"""The environment variable that names the store of a command without ``--store``."""

OF_DJANGO = ("--settings", "--pythonpath")
"""Options that Django reads before a command gets them."""


class Command(BaseCommand):
    """Runs the command line. Commands that work on a store take that of the setting ``UNO_ACTORS``."""

    help = "The command line of uno_actors: manage.py uno_actors --help."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the words of a command line, and exit with the code of ``uno-actors``."""
        _run(f"{Path(argv[0]).name} {argv[1]}", _without_options_of_django(argv[2:]))

    def add_arguments(self, parser: CommandParser) -> None:
        """For ``call_command``."""
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, words: list[str], **__: Any) -> None:
        """Run the words that a program gives, as in ``call_command("uno_actors", "handlers", "list")``.

        Raises:
            CommandError: The command failed.
        """
        try:
            _run("uno-actors", words)
        except SystemExit as ended:
            if ended.code:
                raise CommandError("uno-actors failed", returncode=int(ended.code)) from None


def _run(name: str, words: list[str]) -> None:
    if STORE not in os.environ and (url := _store_of_settings()) is not None:
        os.environ[STORE] = url
    before, sys.argv = sys.argv, [name, *words]
    try:
        main()
    finally:
        sys.argv = before


def _store_of_settings() -> str | None:
    try:
        return Configuration.of_settings().store_url()
    except ImproperlyConfigured:
        return None


def _without_options_of_django(words: list[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in OF_DJANGO:
            next(rest, None)
        elif not word.startswith(tuple(f"{option}=" for option in OF_DJANGO)):
            kept.append(word)
    return kept
