"""Whether the server of this process is about to end: streams that never end by themselves must end then.

A server such as uvicorn waits for open requests before it tells the application of its end. uvicorn's own handler of
signals is a method of the server, whose ``should_exit`` is then true.
"""

import signal
import threading
from typing import Any


def uvicorn_here() -> Any:
    """The uvicorn server that runs this process; ``None`` if there is none, or if this is not the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if hasattr(owner, "should_exit") else None


def is_ending() -> bool:
    """Whether uvicorn, which runs this process, was asked to end."""
    return bool(getattr(uvicorn_here(), "should_exit", False))
