"""Errors of our stores as those that applications of ``eventsourcing`` expect."""

from collections.abc import Iterator
from contextlib import contextmanager

from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    PersistenceError,
)

from uno_actors.errors import (
    CallerError,
    CheckpointConflict,
    ConcurrencyConflict,
    SeveralLogs,
    UnoError,
    WorldError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Do something with a store.

    Raises:
        IntegrityError: An event or a tracking record of this place was recorded before.
        DataError: A value cannot be recorded.
        OperationalError: The store failed, or is closed.
        NotSupportedError: The store has several logs.
        PersistenceError: Any other error of the store.
    """
    try:
        yield
    except (ConcurrencyConflict, CheckpointConflict) as error:
        raise IntegrityError(str(error)) from error
    except SeveralLogs as error:
        raise NotSupportedError(str(error)) from error
    except WorldError as error:
        raise OperationalError(str(error)) from error
    except (CallerError, ValueError) as error:
        raise DataError(str(error)) from error
    except UnoError as error:
        raise PersistenceError(str(error)) from error
