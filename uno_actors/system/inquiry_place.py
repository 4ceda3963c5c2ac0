"""Where a running system looks for the answer to an inquiry: itself, its store, and other processes on that."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from uno_actors.cluster.settings import Cluster
from uno_actors.errors import describe
from uno_actors.inquiry.facts import ProcessFacts, Question, Silent
from uno_actors.store.port import EventStore
from uno_actors.system.control_socket import WHY, asked, process_of
from uno_actors.system.facts import facts_of
from uno_actors.system.runtime import Runtime
from uno_actors.tasks import begin

PATIENCE = 3.0
"""Maximum seconds for the answer of a process; one whose loop is held takes about two."""
LONGEST_ANSWER = 64 << 20
"""Bytes of the answer of a process."""


class SystemPlace:
    """A running system of this process; see `uno_actors.inquiry.gathering.Place`.

    Args:
        name: Of the system.
        runtime: Its running parts.
        store: Its store.
        url: URL of the store without the password; ``None`` if no command reaches it.
        cluster: Its settings as a node.
    """

    def __init__(
        self, name: str, runtime: Runtime, store: EventStore, url: str | None, cluster: Cluster
    ) -> None:
        self.store = store
        self.url = url
        self.cluster = cluster
        self._name = name
        self._runtime = runtime

    async def ask(self, question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
        """See `uno_actors.inquiry.gathering.Place`."""
        elsewhere = self._runtime.elsewhere
        found = [facts_of(self._name, self._runtime, question)]
        found += [other.facts(question) for other in elsewhere.siblings if other.facts is not None]
        paths = await asyncio.to_thread(lambda: list(elsewhere.sockets()))
        more, silent = await ask_sockets(paths, question)
        return [*found, *more], silent


async def ask_sockets(paths: Iterable[Path], question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
    """What the processes with these sockets know, and those that could not be asked."""
    loop = asyncio.get_running_loop()
    answers = await asyncio.gather(*[begin(loop, _asked(path, question)) for path in paths])
    found = [answer for answer in answers if isinstance(answer, ProcessFacts)]
    return found, [answer for answer in answers if isinstance(answer, Silent)]


async def _asked(path: Path, question: Question) -> ProcessFacts | Silent | None:
    """What a process knows, or why it does not say so; ``None`` if it has ended."""
    process = process_of(path)
    wanted = {"want": WHY, "question": question.to_json()}
    try:
        async with asyncio.timeout(PATIENCE):
            return ProcessFacts.from_json(await asked(path, wanted, LONGEST_ANSWER))
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except TimeoutError:
        return Silent(process, f"no answer within {PATIENCE:g} s; it hangs, or was stopped")
    except (OSError, ValueError, KeyError) as error:
        return Silent(process, describe(error))
