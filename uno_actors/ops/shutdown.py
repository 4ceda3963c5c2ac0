"""Whether the server of this process is about to end: streams that never end by themselves must end then.

A server such as uvicorn waits for open requests before it tells the application of its end. uvicorn's own handler of
signals is a method of the server, whose ``should_exit`` is then true.
"""

import signal
import threading


def is_ending() -> bool:
    """Whether uvicorn, which runs this process, was asked to end."""
    if threading.current_thread() is not threading.main_thread():
        return False
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
