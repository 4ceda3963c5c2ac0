"""The setting ``UNO_ACTORS`` of a project."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from uno_actors.config.reader import load_system
from uno_actors.giving_up import GAVE_UP
from uno_actors.system.system import ActorSystem

NAME = "UNO_ACTORS"

STARTS = ("first use", "first request")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The setting, checked. Its keys are the names of the attributes in capitals.

    Attributes:
        config: Path of a configuration file. Either this or ``system`` is given.
        system: A function that makes a system, or its dotted path.
        options: With a file: options of `ActorSystem` that override those of the file.
        start: When a process starts the system: when it is first used, or with the first request already.
        exit_code: Code with which a server's process ends when the system's supervisors have given up; ``None`` to keep
            serving.
    """

    config: Any = None
    system: Callable[[], ActorSystem] | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    start: Literal["first use", "first request"] = "first use"
    exit_code: int | None = GAVE_UP

    @classmethod
    def of_settings(cls) -> Self:
        """The configuration of the project.

        Raises:
            ImproperlyConfigured: The setting is missing or wrong.
        """
        found = getattr(settings, NAME, None)
        if found is None:
            raise ImproperlyConfigured(
                f'{NAME} is not set: write {NAME} = {{"CONFIG": BASE_DIR / "system.toml"}}'
            )
        allowed = {each.name.upper(): each.name for each in fields(cls)}
        unknown = sorted(set(found) - set(allowed), key=str)
        if unknown:
            raise ImproperlyConfigured(
                f"{NAME} has {unknown[0]!r}; the keys are: {', '.join(sorted(allowed))}"
            )
        made = cls(**{allowed[key]: value for key, value in found.items()})
        if (made.config is None) == (made.system is None):
            raise ImproperlyConfigured(
                f"{NAME} needs either CONFIG, a configuration file, or SYSTEM, a function"
            )
        if made.system is not None and made.options:
            raise ImproperlyConfigured(
                f"OPTIONS of {NAME} go with CONFIG; SYSTEM gives them to the system itself"
            )
        if made.start not in STARTS:
            starts = ", ".join(map(repr, STARTS))
            raise ImproperlyConfigured(f"START of {NAME} is one of {starts}; found {made.start!r}")
        return made

    def new_system(self) -> ActorSystem:
        """A system that has not started.

        Raises:
            ImproperlyConfigured: ``SYSTEM`` is not a function that returns a system.
            InvalidConfig: The file is invalid.
        """
        if self.config is not None:
            return ActorSystem.from_config(self.config, **self.options)
        make = import_string(self.system) if isinstance(self.system, str) else self.system
        made = make() if callable(make) else make
        if not isinstance(made, ActorSystem):
            raise ImproperlyConfigured(
                f"SYSTEM of {NAME} must be a function that makes a system; found {made!r}"
            )
        return made

    def store_url(self) -> str | None:
        """The URL of the store that the file names; ``None`` without a file."""
        if self.config is None:
            return None
        url = self.options.get("store")
        return url if isinstance(url, str) else load_system(self.config).url
