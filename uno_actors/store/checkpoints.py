"""Checkpoints that move with events: when a move is refused, the one rule that all stores share."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from uno_actors.errors import CheckpointConflict, InvalidNumber, LeaseLost, UnoError
from uno_actors.store.handler_names import handler_of
from uno_actors.store.limits import MAX_NUMBER, check_handlers
from uno_actors.store.records import Append, Appended, Checkpoint


def moves_of(requests: Sequence[Append]) -> list[Checkpoint]:
    """The checkpoints that ``requests`` move, in order."""
    return [request.checkpoint for request in requests if request.checkpoint is not None]


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that not every store can keep.

    Raises:
        InvalidHandler: Its name is empty, too long, or holds a NUL character or text that UTF-8 cannot encode.
        InvalidNumber: A position is not an int, negative, or beyond 63 bits.
    """
    check_handlers([checkpoint.name])
    for what, number in (("position", checkpoint.position), ("was", checkpoint.was)):
        if number is None and what == "was":
            continue
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_NUMBER:
            raise InvalidNumber(f"{what} of a checkpoint", "an int, 0 or more, and below 2**63", number)


def check_move(checkpoint: Checkpoint, actual: int | None) -> None:
    """Refuse to move a checkpoint that is not where it is expected, or that would go back.

    Args:
        checkpoint: The move; see `check_checkpoint`.
        actual: Where the checkpoint is now, earlier requests of the same commit included; ``None`` if there is none.

    Raises:
        CheckpointConflict: It is elsewhere; or it would not move forward, and may not go back.
    """
    name, position, was = checkpoint.name, checkpoint.position, checkpoint.was
    is_elsewhere = was is not None and was != (actual or 0)
    is_back = actual is not None and position <= actual and not checkpoint.may_go_back
    if is_elsewhere or is_back:
        raise CheckpointConflict(name, position, was, actual)


class Moves:
    """The checkpoints that one transaction moves, in the order of its requests.

    Args:
        found: The positions of those that exist.
        lost: The handlers of this store that another process has taken over.
        store: Its URL.

    Attributes:
        moved: The new positions.
    """

    def __init__(self, found: Mapping[str, int], lost: Collection[str] = (), store: str = "") -> None:
        self._found = found
        self._lost = lost
        self._store = store
        self.moved: dict[str, int] = {}

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse a move.

        Raises:
            InvalidHandler, InvalidNumber: See `check_checkpoint`.
            LeaseLost: Another process has taken over the handler.
            CheckpointConflict: See `check_move`.
        """
        check_checkpoint(checkpoint)
        name = checkpoint.name
        if (handler := handler_of(name)) in self._lost:
            raise LeaseLost(self._store, [handler])
        check_move(checkpoint, self.moved.get(name, self._found.get(name)))

    def move(self, checkpoint: Checkpoint) -> None:
        """Note a move that was checked."""
        self.moved[checkpoint.name] = checkpoint.position


def losses_in(outcomes: Iterable[Appended | UnoError]) -> list[str]:
    """The handlers that another process has taken over, by the outcomes of requests."""
    return [name for outcome in outcomes if isinstance(outcome, LeaseLost) for name in outcome.handlers]
