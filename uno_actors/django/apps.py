"""The application that a project installs: ``"uno_actors.django"``."""

from django.apps import AppConfig
from django.core.signals import request_started, setting_changed

from uno_actors.django import process
from uno_actors.django.configuration import Configuration


class UnoActorsConfig(AppConfig):
    """Checks the setting at the start, and connects the system to Django's signals. It starts nothing."""

    name = "uno_actors.django"
    label = "uno_actors"
    verbose_name = "Actors"

    def ready(self) -> None:
        """Called once in each process that imports the project, also in those that serve nothing."""
        setting_changed.connect(process.setting_changed, dispatch_uid="uno_actors")
        if Configuration.of_settings().start == "first request":
            request_started.connect(_start, dispatch_uid="uno_actors")


def _start(**_: object) -> None:
    process.system()
