"""Where a version of a program is: a directory, a revision of a git repository, or a virtual environment."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SOURCE_DIRECTORIES = (".", "src")
"""Directories below the root of a program in which its packages are, unless others are named."""


class NoSuchPlace(Exception):
    """There is no such version of a program; the text says what is missing."""


class Place(NamedTuple):
    """A version of a program.

    Attributes:
        given: As the user has named it.
        title: For people: with the revision that a name of git stands for.
        root: The directory in which its configuration file is.
        python: The interpreter that runs it.
        paths: Directories that come first in ``sys.path``.
        environment: Variables of its processes.
    """

    given: str
    title: str
    root: Path
    python: str
    paths: tuple[str, ...]
    environment: Mapping[str, str]

    def source(self, source: str) -> str:
        """A source as its process finds it: files are below the root."""
        return str(self.root / source) if source.endswith((".toml", ".json")) else source


@contextmanager
def placed(given: str, paths: Sequence[str], here: Path) -> Iterator[Place]:
    """The version that a user has named; a revision is copied to a directory that is removed afterwards.

    Args:
        given: A directory, a virtual environment, or a revision of the repository around ``here``.
        paths: Directories of packages below the root; none for `SOURCE_DIRECTORIES`.
        here: The directory that a virtual environment's configuration file is in.

    Raises:
        NoSuchPlace: It is none of these, or not in the repository.
    """
    directory = Path(given)
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # the order of sets must not differ
    if (directory / "pyvenv.cfg").exists():
        environment.pop("PYTHONPATH", None)  # it would hide what is installed there
        yield Place(given, given, here, _python_of(directory), (), environment)
    elif directory.is_dir():
        root = directory.resolve()
        yield Place(given, given, root, sys.executable, _below(root, paths), environment)
    else:
        revision = _revision(given, here)
        with tempfile.TemporaryDirectory(prefix="uno-actors-rehearsal-") as copy:
            below = _copy(revision, here, Path(copy))
            root = Path(copy).resolve() / below
            if not root.is_dir():
                raise NoSuchPlace(f"{given} has no directory {below}")
            title = given if revision.startswith(given) else f"{given} ({revision[:10]})"
            yield Place(given, title, root, sys.executable, _below(root, paths), environment)


def _below(root: Path, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(root / path) for path in paths or SOURCE_DIRECTORIES if (root / path).is_dir())


def _python_of(directory: Path) -> str:
    for python in (directory / "bin" / "python", directory / "Scripts" / "python.exe"):
        if python.exists():
            return str(python.absolute())
    raise NoSuchPlace(f"the virtual environment {directory} has no python")


def _git(*arguments: str, here: Path, variables: Mapping[str, str] | None = None) -> str:
    """What git prints; with further variables in its environment.

    Raises:
        NoSuchPlace: It has failed, or is not installed.
    """
    try:
        done = subprocess.run(  # noqa: S603 - git is what the user has asked for
            ["git", "-C", str(here), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **(variables or {})},
        )
    except FileNotFoundError:
        raise NoSuchPlace("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NoSuchPlace(error.stderr.strip()) from None
    return done.stdout.strip()


def _revision(given: str, here: Path) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{given}^{{commit}}", here=here)
    except NoSuchPlace as error:
        reason = f" ({error})" if str(error) else ""
        raise NoSuchPlace(
            f"{given} is not a directory, nor a revision of the git repository here{reason}; in CI, fetch it first:"
            f" git fetch origin {given}"
        ) from None


def _copy(revision: str, here: Path, target: Path) -> str:
    """Check out a revision of the repository around ``here`` to ``target``; the path of ``here`` in the repository.

    A checkout through an index of its own leaves no trace in the repository, even if this process is killed, as a
    worktree would. It has the files that a clone has. ``git archive`` leaves out or changes those with attributes for
    exports.
    """
    top = Path(_git("rev-parse", "--show-toplevel", here=here))
    prefix = _git("rev-parse", "--show-prefix", here=here)
    with tempfile.TemporaryDirectory(prefix="uno-actors-index-") as directory:
        index = {"GIT_INDEX_FILE": str(Path(directory) / "index")}
        _git(
            "-c",
            "core.splitIndex=false",
            "read-tree",
            "--no-sparse-checkout",
            revision,
            here=top,
            variables=index,
        )
        _git("checkout-index", "--all", "--quiet", f"--prefix={target}/", here=top, variables=index)
    return prefix
