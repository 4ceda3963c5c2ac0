"""The leases that a store has given out: what LMDB and SQL stores do alike with them."""

import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator

from typing_extensions import override

from uno_actors.errors import LeaseLost, StoreUnavailable
from uno_actors.store.port import Lease


class GivenLease(Lease):
    """A lease that a store has given out.

    Args:
        name: What is leased.
        release: Lets others have it.
        confirm: Finds out which names other processes have taken over.
    """

    def __init__(
        self,
        name: str,
        release: Callable[["GivenLease"], Awaitable[None]],
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self._release = release
        self._confirm = confirm

    @override
    async def release(self) -> None:
        await self._release(self)

    @override
    async def confirm(self) -> None:
        await self._confirm()


class GivenLeases:
    """Passes what a store learns about its names on to the holders of the leases.

    Args:
        release: Of the leases, see `GivenLease`.
        confirm: Likewise.

    Attributes:
        held: The leases that were given out and not released, by name.
    """

    def __init__(
        self, release: Callable[[GivenLease], Awaitable[None]], confirm: Callable[[], Awaitable[None]]
    ) -> None:
        self.held: dict[str, GivenLease] = {}
        self._release = release
        self._confirm = confirm
        self._sure: dict[str, float] = {}

    def give(self, name: str) -> GivenLease:
        """The lease of ``name``, which this store has taken."""
        self.held[name] = lease = GivenLease(name, self._release, self._confirm)
        lease.sure_until = self._sure.get(name, math.inf)
        return lease

    def take_back(self, lease: GivenLease) -> bool:
        """Forget a lease; return whether it was given out and not released yet."""
        if self.held.get(lease.name) is not lease:
            return False
        del self.held[lease.name]
        return True

    def lose(self, name: str) -> None:
        """Note that another process has taken over ``name``."""
        if (lease := self.held.get(name)) is not None:
            lease._lose()

    def renewed(self, name: str, until: float) -> None:
        """Note that ``name`` is surely held until then, by `time.monotonic`."""
        self._sure[name] = until
        if (lease := self.held.get(name)) is not None:
            lease.sure_until = until

    @contextlib.contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Note the names of a `LeaseLost` that the block raises."""
        try:
            yield
        except LeaseLost as lost:
            for name in lost.handlers:
                self.lose(name)
            raise


@contextlib.contextmanager
def needing_lease_files(store: str) -> Iterator[None]:
    """Do something with the files of leases.

    Args:
        store: Its URL.

    Raises:
        StoreUnavailable: The files cannot be made, read or locked.
    """
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(store, f"its leases: {error.strerror or error}") from error
