"""Files of a store that were removed or replaced while it is open: commits into them are not acknowledged."""

from pathlib import Path


class Files:
    """Files as they were when they were opened. What is written to a removed file is lost."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    def watch(self, *paths: Path) -> None:
        """Watch these files from now on.

        Raises:
            OSError: One is missing.
        """
        self._known.update((path, _identity(path)) for path in paths)

    def lost(self) -> str:
        """What happened to a file that is no longer in its place; empty if all files are."""
        for path, known in tuple(self._known.items()):  # other threads add some
            try:
                found = _identity(path)
            except OSError as error:
                return f"{path} was removed ({error.strerror})"
            if found != known:
                return f"{path} was replaced by another file"
        return ""


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
