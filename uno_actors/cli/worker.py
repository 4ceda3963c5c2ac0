"""One worker process of ``uno-actors run --workers``, which its supervisor process starts.

It runs the system of the file as one node of the cluster, named after the system and its index, as in ``bank/1``.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from uno_actors.cli.check import exit_code
from uno_actors.cli.service import CANNOT_START, EarlySignals, end_process, named, run_service
from uno_actors.cli.terminal import complain, take_any_encoding
from uno_actors.cli.worker_link import SupervisorLink
from uno_actors.cluster.settings import Role
from uno_actors.cluster.workers import of_worker
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import Config, load
from uno_actors.errors import InvalidCluster


def main() -> None:
    """Run one worker until its supervisor process stops it or ends."""
    take_any_encoding()
    parser = argparse.ArgumentParser(prog="uno-actors run", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--log", choices=("text", "json"))
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--roles", required=True)
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--stop-timeout", type=float, required=True)
    parser.add_argument("--node-name")
    given = parser.parse_args()
    early = EarlySignals()
    early.catch()
    link = SupervisorLink(given.link, given.stop_timeout)
    link.listen()
    worker = Worker(given.worker, tuple(given.roles.split(",")), link, given.node_name)
    try:
        config = worker.adapted(load(given.file))
    except InvalidConfig as error:
        complain(error)
        end_process(exit_code(error))
    except InvalidCluster as error:
        complain(error)
        end_process(CANNOT_START)
    end_process(run_service(config, given.log, early, worker))


class Worker:
    """One worker, for its `Service`.

    Args:
        index: From 1.
        roles: What it is for.
        link: To the supervisor process.
        node_name: Name of its node, in place of the file's.
    """

    def __init__(
        self, index: int, roles: tuple[Role, ...], link: SupervisorLink, node_name: str | None = None
    ) -> None:
        self._node_name = node_name
        self._index = index
        self._roles = roles
        self.attach = link.attach
        self.ready = link.ready

    def adapted(self, config: Config) -> Config:
        """The configuration of this worker: its name, and what it is as a node.

        Raises:
            InvalidCluster: There is no port for it.
        """
        system = config.system.model_copy(update={"name": f"{config.system.name}/{self._index}"})
        cluster = of_worker(config.cluster, self._index, self._roles)
        return named(replace(config, system=system, cluster=cluster), self._node_name)


if __name__ == "__main__":
    main()
