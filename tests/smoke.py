"""A user's first minute, tried on the installed wheel: run in a clean environment by .ci/run."""

import importlib.metadata
import importlib.resources
import tempfile
from pathlib import Path

from uno_actors import ActorSystem, AggregateRoot, Command, DomainEvent, handles


class Greet(Command[int]):
    name: str


class Greeted(DomainEvent):
    name: str


class Guest(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.greetings = 0

    @handles
    def greet(self, command: Greet) -> int:
        self.register_event(Greeted(name=command.name))
        return self.greetings

    def apply_greeted(self, event: Greeted) -> None:
        self.greetings += 1


def main() -> None:
    for package in ("uno_actors", "uno_stores"):
        assert importlib.resources.files(package).joinpath("py.typed").is_file(), package
    page = importlib.resources.files("uno_actors.ops").joinpath("page")
    assert {"index.html", "page.css", "main.js"} <= {file.name for file in page.iterdir()}
    schemes = {entry.name for entry in importlib.metadata.entry_points(group="uno_actors.stores")}
    assert {"memory", "lmdb"} <= schemes, schemes
    with tempfile.TemporaryDirectory() as directory:
        url = f"lmdb:{Path(directory) / 'guests'}"
        for count in (1, 2):
            with ActorSystem(url) as system:
                assert system.aggregate(Guest, "ada").ask(Greet(name="Ada")).get(timeout=10) == count
    version = importlib.metadata.version("uno-actors")
    print(f"smoke test of uno-actors {version}: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
