"""One actor system for each process of a Django project; ``pip install "uno_actors[django]"``.

    INSTALLED_APPS = [..., "uno_actors.django"]
    UNO_ACTORS = {"CONFIG": BASE_DIR / "shop.toml"}

- `system` is the running system of this process: started on first use, never in the parent of a worker process, and
  stopped when the process ends.
- `uno_actors.django.middleware` answers errors with problem details (RFC 9457).
- ``manage.py uno_actors`` is the command line ``uno-actors``.
"""

from uno_actors.errors import MissingExtra

try:
    import django as _django  # noqa: F401 - asked for here, so that the error names the extra
except ImportError as missing:
    raise MissingExtra("uno_actors.django", "django", missing) from missing

from uno_actors.django.process import is_started, stop, system
from uno_actors.giving_up import GAVE_UP

__all__ = ["GAVE_UP", "is_started", "stop", "system"]
