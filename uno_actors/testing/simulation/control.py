"""Time and chance of a simulated run: inside of it, the standard library's are those of the run."""

import asyncio
import datetime as dt
import gc
import logging
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from typing_extensions import override

from uno_actors import causality
from uno_actors.testing.simulation.core import Core
from uno_actors.testing.simulation.escapes import LOOP, SLEEP, THREAD, Guard, install, watching

_real_datetime = dt.datetime
_active: Core | None = None
_thread: int | None = None


def active() -> Core | None:
    """The core of the run on this thread."""
    return _active if _active is not None and threading.get_ident() == _thread else None


def _clock(real: Callable[[], Any], simulated: Callable[[Core], Any]) -> Callable[[], Any]:
    def read() -> Any:
        core = active()
        return real() if core is None else simulated(core)

    read.__name__ = read.__qualname__ = real.__name__
    return read


_CLOCKS: dict[str, Callable[[], Any]] = {
    name: _clock(getattr(time, name), simulated)
    for name, simulated in {
        "monotonic": lambda core: core.place.monotonic(),
        "monotonic_ns": lambda core: int(core.place.monotonic() * 1e9),
        "perf_counter": lambda core: core.place.monotonic(),
        "perf_counter_ns": lambda core: int(core.place.monotonic() * 1e9),
        "time": lambda core: core.place.time_of_day(),
        "time_ns": lambda core: int(core.place.time_of_day() * 1e9),
    }.items()
}
_REAL = {id(getattr(time, name)): _CLOCKS[name] for name in _CLOCKS}

_CLOCK_IDS = frozenset(_REAL)
_START_THREAD = {
    name: vars(threading)[name]
    for name in ("_start_new_thread", "_start_joinable_thread")  # the latter from Python 3.13 on
    if name in vars(threading)
}
_real_new_event_loop = asyncio.new_event_loop
_real_sleep = time.sleep
_real_seed = random.Random.seed
_real_urandom = os.urandom


def _sleep(seconds: float) -> None:
    core = active()
    if core is not None:
        raise core.guard.escapes(SLEEP, sys._getframe(1))
    _real_sleep(seconds)


def _refusing(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        core = active()
        if core is not None and not core.closed:
            raise core.guard.escapes(what, sys._getframe(1))
        return real(*arguments, **options)

    return call


def _seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    core = active()
    _real_seed(self, core.entropy.getrandbits(64) if a is None and core is not None else a, version)


def _urandom(size: int) -> bytes:
    core = active()
    return _real_urandom(size) if core is None else core.entropy.randbytes(size)


def _guard() -> Guard | None:
    core = active()
    return None if core is None or core.closed else core.guard


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _real_datetime)


class SimulatedDatetime(_real_datetime, metaclass=_Kind):
    """``datetime`` whose ``now`` is the time of the run; what it makes are plain datetimes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as datetime's
        return _real_datetime(*args, **kwargs)

    @classmethod
    @override
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        core = active()
        return (
            _real_datetime.now(tz)
            if core is None
            else _real_datetime.fromtimestamp(core.place.time_of_day(), tz)
        )

    @classmethod
    @override
    def utcnow(cls) -> Any:
        return cls.now(dt.UTC).replace(tzinfo=None)

    @classmethod
    @override
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[Any], Any]) -> Any:
        return handler(_real_datetime)


_LIBRARIES = (
    "asyncio",
    "_pytest",
    "pytest",
    "threading",
    "queue",
    "concurrent",
    "logging",
    "pluggy",
    "xdist",
    "execnet",
)
"""Modules that keep the machine's own time: they serve the program that runs the simulation."""


@contextmanager
def controlled() -> Iterator[None]:
    """Replace clocks and chance of the standard library, in all modules that are imported, until the block ends.

    Outside of a run they stay what they are.
    """
    changed: list[tuple[Any, str, Any]] = []

    def put(place: Any, name: str, value: Any) -> None:
        changed.append((place, name, vars(place)[name]))
        setattr(place, name, value)

    for name, clock in _CLOCKS.items():
        put(time, name, clock)
    install(_guard)
    put(time, "sleep", _sleep)
    for name, real in _START_THREAD.items():
        put(threading, name, _refusing(THREAD, real))  # no audit event tells of it before Python 3.12
    for place in (asyncio, asyncio.events):
        put(place, "new_event_loop", _refusing(LOOP, _real_new_event_loop))
    put(random.Random, "seed", _seed)
    put(os, "urandom", _urandom)
    put(random, "_urandom", _urandom)
    for module in list(sys.modules.values()):
        if module.__name__ not in (__name__, "time") and module.__name__.partition(".")[0] not in _LIBRARIES:
            for place, name, value in [*_in_module(module)]:
                put(place, name, value)
    try:
        yield
    finally:
        for place, name, value in reversed(changed):
            setattr(place, name, value)


def _in_module(module: Any) -> Iterator[tuple[Any, str, Any]]:
    """What a module and its classes keep of the machine's clocks and chance, with what is to stand there."""
    stands_in = _REAL | {id(_real_sleep): _sleep, id(_real_urandom): _urandom}
    for name, value in vars(module).items():
        if id(value) in stands_in:
            yield module, name, stands_in[id(value)]
        elif value is _real_datetime and _reads_datetime(module):
            yield module, name, SimulatedDatetime
        elif (
            issubclass(type(value), type) and value.__module__ == module.__name__
        ):  # asks no lazy object what it is
            for attribute, kept in vars(value).items():  # as `SystemClock` keeps them
                if isinstance(kept, staticmethod) and id(kept.__func__) in _REAL:
                    yield value, attribute, staticmethod(_REAL[id(kept.__func__)])


def _reads_datetime(module: Any) -> bool:
    return module.__name__ not in ("pickle", "copyreg", "_pydatetime") and not module.__name__.startswith(
        "pydantic"
    )


_NODE = re.compile(r" (?:system|node)=\S+")
"""What the story shows already, or what names a process of the machine."""


class _Logs(logging.Handler):
    """Tells what is logged in the story of the run, and no one else."""

    def __init__(self, core: Core) -> None:
        super().__init__(logging.WARNING)
        self._core = core

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not self._core.closed:
            line = _NODE.sub("", str(record.msg).partition("\n")[0])
            self._core.story_line(self._core.place.name, "log", line)


@contextmanager
def running(core: Core, *, watch: bool = False) -> Iterator[None]:
    """Have the time and the chance of this thread be those of ``core``'s run.

    Args:
        core: Of the run.
        watch: Whether to notice calls of the machine's clocks by other names, which takes longer.
    """
    global _active, _thread  # noqa: PLW0603 - one run at a time
    if _active is not None:
        raise RuntimeError("a simulation runs already")
    chance = random.getstate()
    collects = gc.isenabled()
    gc.disable()  # when it would run does not follow from the seed
    causality._ids.clear()
    random.seed(f"{core.seed}/random")
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
    _active, _thread = core, threading.get_ident()
    logger, logs = logging.getLogger("uno_actors"), _Logs(core)
    propagates, level = logger.propagate, logger.level
    logger.addHandler(logs)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        with watching(core.guard, _CLOCK_IDS, _real_datetime) if watch else nullcontext():
            yield
    finally:
        logger.removeHandler(logs)
        logger.propagate = propagates
        logger.setLevel(level)
        _active = _thread = None
        sys.set_asyncgen_hooks(*hooks)
        random.setstate(chance)
        causality._ids.clear()
        if collects:
            gc.enable()
