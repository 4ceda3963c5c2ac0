"""The nodes of one machine that share a store on its disk."""

import asyncio
import weakref
from collections.abc import Callable

from typing_extensions import override

from uno_actors.errors import StoreUnavailable, UnoError
from uno_actors.store.member_codec import members_of, packed
from uno_actors.store.membership import Member, Membership
from uno_stores.node_files import NodeDirectory, file_name

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the directory of the nodes has changed."""


class FileMembership(Membership):
    """The announcement of one node, in a file that its process has locked.

    Args:
        nodes: The directory beside the store.
        seconds: Until the announcement of a node ends that hangs; that of a dead process ends at once.
        check_open: Raises if the store was closed or its files are gone.
        store: The URL of the store, for errors.
    """

    def __init__(
        self, nodes: NodeDirectory, seconds: float, check_open: Callable[[], None], store: str
    ) -> None:
        self._nodes = nodes
        self._seconds = seconds
        self._check_open = check_open
        self._store = store
        self._name: str | None = None
        self._listener: Callable[[], None] | None = None
        self._signature = 0
        self._others: dict[str, bytes] = {}
        self._looking: asyncio.TimerHandle | None = None

    @override
    async def announce(self, member: Member) -> tuple[Member, ...]:
        self._check_open()
        self._name = name = file_name(member.id)
        try:
            if self._nodes.made(name, self._seconds).announce(packed(member)):
                self._nodes.touch()
            self._signature = self._nodes.signature()
            working = self._nodes.working()
        except OSError as error:
            reason = f"the file of node {member.id} in {self._nodes.path}: {error.strerror or error}"
            raise StoreUnavailable(self._store, reason) from error
        self._others = {each: said for each, said in working.items() if each != name}
        self._look_later()
        return members_of(working.values())

    @override
    async def withdraw(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._name is not None:
            self._nodes.remove(self._name)

    @override
    def when_changed(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._listener is not None and self._looking is None:
            ours = weakref.ref(self)  # a node that is dropped without a word ends its looks
            self._looking = loop.call_later(LOOK_EVERY, _look, ours)

    def _look(self) -> None:
        self._looking = None
        try:
            self._check_open()
            signature = self._nodes.signature()
            if signature != self._signature:
                self._signature = signature
                working = self._nodes.working()
                others = {each: said for each, said in working.items() if each != self._name}
                if others != self._others:
                    self._others = others
                    assert self._listener is not None
                    self._listener()
        except (UnoError, OSError):  # the next announcement gets the error
            return
        self._look_later()


def _look(ours: "weakref.ref[FileMembership]") -> None:
    if (membership := ours()) is not None:
        membership._look()
