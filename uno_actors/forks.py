"""What happens to this program's state when its process forks; nothing where processes cannot fork, as on Windows."""

import os
from collections.abc import Callable


def on_fork(
    *,
    before: Callable[[], None] | None = None,
    after_in_parent: Callable[[], None] | None = None,
    after_in_child: Callable[[], None] | None = None,
) -> None:
    """Have the functions called around each fork from now on; see `os.register_at_fork`."""
    register = getattr(os, "register_at_fork", None)
    if register is None:
        return
    calls = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
    register(**{name: call for name, call in calls.items() if call is not None})
