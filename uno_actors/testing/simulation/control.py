"""Time and chance of a simulated run: inside of it, the standard library's are those of the run."""

import _thread as plain_threads
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
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from typing_extensions import override

from uno_actors import causality, tasks
from uno_actors.testing.simulation.core import Core
from uno_actors.testing.simulation.escapes import (
    LOOP,
    SLEEP,
    THREAD,
    WAITS,
    Guard,
    install,
    is_import,
    watching,
)
from uno_actors.testing.simulation.loop import SimulatedTask
from uno_actors.testing.simulation.model_factories import replaced_factories

_real_datetime = dt.datetime
_active: Core | None = None
_thread: int | None = None
_turn = threading.RLock()
"""Held by the thread that simulates: the standard library is replaced for all."""
_generators: dict[int, tuple[str, random.Random]] = {}
"""The random generators that modules keep, by id, with their names: what they draw would differ from run to run."""


def active() -> Core | None:
    """The core of the run on this thread."""
    return _active if _active is not None and threading.get_ident() == _thread else None


def _clock(real: Callable[..., Any], simulated: Callable[..., Any]) -> Callable[..., Any]:
    def read(*arguments: Any) -> Any:
        core = active()
        return real(*arguments) if core is None else simulated(core, *arguments)

    read.__name__ = read.__qualname__ = real.__name__
    return read


_CLOCKS: dict[str, Callable[..., Any]] = {
    name: _clock(getattr(time, name), simulated)
    for name, simulated in {
        "monotonic": lambda core: core.place.monotonic(),
        "monotonic_ns": lambda core: int(core.place.monotonic() * 1e9),
        "perf_counter": lambda core: core.place.monotonic(),
        "perf_counter_ns": lambda core: int(core.place.monotonic() * 1e9),
        "time": lambda core: core.place.time_of_day(),
        "time_ns": lambda core: int(core.place.time_of_day() * 1e9),
        "process_time": lambda core: core.place.monotonic(),
        "process_time_ns": lambda core: int(core.place.monotonic() * 1e9),
        "thread_time": lambda core: core.place.monotonic(),
        "thread_time_ns": lambda core: int(core.place.monotonic() * 1e9),
    }.items()
}
_CLOCK_IDS = frozenset(id(getattr(time, name)) for name in _CLOCKS)
"""Those that show the time whatever they are given."""


def _of_clock(core: Core, clock: int) -> float:
    return core.place.time_of_day() if clock in _TIMES_OF_DAY else core.place.monotonic()


_TIMES_OF_DAY = {getattr(time, name) for name in ("CLOCK_REALTIME", "CLOCK_TAI") if hasattr(time, name)}
_real_localtime, _real_gmtime, _real_ctime = time.localtime, time.gmtime, time.ctime
_real_asctime, _real_strftime = time.asctime, time.strftime
_BY_DEFAULT_NOW: dict[str, Callable[..., Any]] = {
    "localtime": lambda core, *at: _real_localtime(*at or [core.place.time_of_day()]),
    "gmtime": lambda core, *at: _real_gmtime(*at or [core.place.time_of_day()]),
    "ctime": lambda core, *at: _real_ctime(*at or [core.place.time_of_day()]),
    "asctime": lambda core, *at: _real_asctime(*at or [_real_localtime(core.place.time_of_day())]),
    "strftime": lambda core, form, *at: _real_strftime(
        form, *at or [_real_localtime(core.place.time_of_day())]
    ),
    "clock_gettime": _of_clock,
    "clock_gettime_ns": lambda core, clock: int(_of_clock(core, clock) * 1e9),
}
"""Functions that read the clock unless they are given a time, or read one of several."""
_CLOCKS |= {
    name: _clock(getattr(time, name), simulated)
    for name, simulated in _BY_DEFAULT_NOW.items()
    if hasattr(time, name)  # not all systems have all of them
}
_REAL = {id(getattr(time, name)): _CLOCKS[name] for name in _CLOCKS}

_START_THREAD = {
    name: vars(threading)[name]
    for name in ("_start_new_thread", "_start_joinable_thread")  # the latter from Python 3.13 on
    if name in vars(threading)
}
_real_start_thread = plain_threads.start_new_thread
_real_new_event_loop = asyncio.new_event_loop
_real_sleep = time.sleep
_real_seed = random.Random.seed
_real_urandom = os.urandom
_real_getrandom: Callable[..., bytes] | None = getattr(os, "getrandom", None)  # of Linux
_real_getnode = uuid.getnode
_real_as_completed = asyncio.as_completed
_real_wait = threading.Condition.wait


def _sleep(seconds: float) -> None:
    core = active()
    if core is not None:
        raise core.guard.escapes(SLEEP, sys._getframe(1))
    _real_sleep(seconds)


def _refusing(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        guard = _guard()
        if guard is not None and not is_import(sys._getframe(1)):
            raise guard.escapes(what, sys._getframe(1))
        return real(*arguments, **options)

    return call


def _seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    core = active()
    _real_seed(self, core.entropy.getrandbits(64) if a is None and core is not None else a, version)


def _urandom(size: int) -> bytes:
    core = active()
    return _real_urandom(size) if core is None else core.entropy.randbytes(size)


def _getrandom(size: int, flags: int = 0) -> bytes:
    core = active()
    if core is not None:
        return core.entropy.randbytes(size)
    assert _real_getrandom is not None
    return _real_getrandom(size, flags)


def _getnode() -> int:
    return _real_getnode() if active() is None else 0x0200_0000_0001  # a local address


def _as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    """As `asyncio.as_completed`, which begins coroutines in the order of a set."""
    if active() is not None and not asyncio.iscoroutine(fs) and not asyncio.isfuture(fs):
        fs = [asyncio.ensure_future(each) for each in dict.fromkeys(fs)]
    return _real_as_completed(fs, timeout=timeout)


def _wait(self: threading.Condition, timeout: float | None = None) -> bool:
    guard, waits = _guard(), timeout is None or timeout > 0
    if waits and guard is not None and not is_import(sys._getframe(1)):
        raise guard.escapes(WAITS, sys._getframe(1))
    return _real_wait(self, timeout)


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

    Outside of a run they stay what they are. Another thread that simulates has to wait until then.
    """
    with _turn:
        yield from _controlled()


def _controlled() -> Iterator[None]:
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
    put(plain_threads, "start_new_thread", _refusing(THREAD, _real_start_thread))
    put(threading.Condition, "wait", _wait)
    for place in (asyncio, asyncio.events):
        put(place, "new_event_loop", _refusing(LOOP, _real_new_event_loop))
    for place in (asyncio, asyncio.tasks):
        put(place, "as_completed", _as_completed)
    put(tasks, "Task", SimulatedTask)
    put(uuid, "getnode", _getnode)
    put(uuid, "_generate_time_safe", None)  # C code, which reads the machine's clock
    put(uuid, "_last_timestamp", None)
    put(random.Random, "seed", _seed)
    put(os, "urandom", _urandom)
    put(random, "_urandom", _urandom)
    if _real_getrandom is not None:
        put(os, "getrandom", _getrandom)
    for module in list(sys.modules.values()):
        if module.__name__ not in (__name__, "time") and module.__name__.partition(".")[0] not in _LIBRARIES:
            for place, name, value in [*_in_module(module)]:
                put(place, name, value)
            _generators.update({id(each): (name, each) for name, each in _generators_of(module)})
    try:
        with replaced_factories(_stand_in):
            yield
    finally:
        _generators.clear()
        for place, name, value in reversed(changed):
            setattr(place, name, value)


def _generators_of(module: Any) -> Iterator[tuple[str, random.Random]]:
    for name, value in vars(module).items():
        if type(value) is random.Random:
            yield name, value


def _stand_in(function: Any) -> Any:
    """What is to be called instead of a function that reads the machine's clock; ``None`` for any other."""
    if isinstance(function, partial):
        other = _stand_in(function.func)
        return None if other is None else partial(other, *function.args, **function.keywords)
    if getattr(function, "__self__", None) is _real_datetime:
        return getattr(SimulatedDatetime, function.__name__)
    return _STANDS_IN.get(id(function))


_STANDS_IN: dict[int, Any] = _REAL | {
    id(_real_sleep): _sleep,
    id(_real_urandom): _urandom,
    **({} if _real_getrandom is None else {id(_real_getrandom): _getrandom}),
    id(_real_getnode): _getnode,
    id(_real_as_completed): _as_completed,
}


def _in_module(module: Any) -> Iterator[tuple[Any, str, Any]]:
    """What a module and its classes keep of the machine's clocks and chance, with what is to stand there."""
    for name, value in vars(module).items():
        if id(value) in _STANDS_IN:
            yield module, name, _STANDS_IN[id(value)]
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
        raise RuntimeError(
            "a simulation runs already: a scenario cannot simulate; call simulate outside of it, once for each scenario"
        )
    outer = asyncio._get_running_loop()  # of a coroutine that simulates
    carried = None if outer is None else asyncio.current_task(outer)
    if carried is not None:
        asyncio.tasks._leave_task(outer, carried)  # type: ignore[arg-type]
    chance = [(each, each.getstate()) for _, each in _generators.values()]
    uuid._last_timestamp = None  # type: ignore[attr-defined]
    collects = gc.isenabled()
    gc.disable()  # when it would run does not follow from the seed
    causality._ids.clear()
    for name, each in _generators.values():
        each.seed(f"{core.seed}/{name}")
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
        for each, state in chance:
            each.setstate(state)
        causality._ids.clear()
        if collects:
            gc.enable()
        asyncio._set_running_loop(outer)
        if carried is not None:
            asyncio.tasks._enter_task(outer, carried)  # type: ignore[arg-type]
