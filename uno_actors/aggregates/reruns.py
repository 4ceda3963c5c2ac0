"""Reruns: what an aggregate does while other writers continue its stream too. Pure values; the actor carries them out.

An append that met a faster writer has recorded nothing. Its commands are decided again on what is recorded:

- A command is run again until its asker's time is over. A command that was told has the time of an ask by default,
  counted from its first conflict. Only then does it end with `ConcurrencyConflict`.
- The first rerun follows at once, those after further conflicts in a row follow an exponential back-off with jitter.
- The next append holds at most half of the commands that lost together, so that they never all lose together again.
  Each append that is recorded doubles the number.
- The winner gives others their turn. It would win every time otherwise, since it need not read before it decides: it
  waits as long as its last attempt took, or up to four times as long, then reads what others have recorded, and
  decides nothing ahead of the disk. After `QUIET_TURNS` turns without another writer the aggregate is as before.
"""

from dataclasses import dataclass, replace

from uno_actors.backoff import Backoff

RERUN_BACKOFF = Backoff(initial=0.004, max=0.016, jitter=1.0)
"""Seconds before a rerun, from the second conflict in a row on. The maximum is low: the turns of others are short."""
LONGEST_TURN = 0.25
"""Maximum number of seconds that the winner leaves to others at once."""
QUIET_TURNS = 5
"""Turns left to others without another writer, after which there is none."""


@dataclass(frozen=True, slots=True)
class Contention:
    """What an aggregate has met of other writers, and what follows for its next append.

    Attributes:
        together: Maximum number of commands in the next append.
        losses: Appends that lost in a row.
        quiet: Turns in a row that were left to others and in which none wrote.
        pause: Seconds before the stream is read for the next append.
    """

    together: int
    losses: int = 0
    quiet: int = 0
    pause: float = 0.0

    def lost(self, commands: int, chance: float) -> "Contention":
        """An append of so many ``commands`` met a faster writer; ``chance`` in [0, 1) decides the jitter."""
        pause = RERUN_BACKOFF.delay(self.losses - 1, chance) if self.losses else 0.0
        return Contention(max(1, min(self.together, commands) // 2), self.losses + 1, 0, pause)

    def recorded(self, seconds: float, most: int, chance: float) -> "Contention":
        """An append was recorded, ``seconds`` after the reading for it; ``most`` limits the next one."""
        pause = min(LONGEST_TURN, seconds * (1 + 3 * chance))
        return Contention(min(most, self.together * 2), 0, self.quiet, pause)

    def read(self, others: int) -> "Contention | None":
        """The stream was read and had so many events of others; ``None`` once there is no other writer."""
        if others or self.losses:
            return replace(self, quiet=0, pause=0.0)
        return None if self.quiet + 1 >= QUIET_TURNS else replace(self, quiet=self.quiet + 1, pause=0.0)

    def __str__(self) -> str:
        """What it does, for an asker whose time is over."""
        lost = f"its last append lost to them {self.losses} times in a row" if self.losses > 1 else ""
        waiting = f"it waits {self.pause:.3g} s before it reads the stream again" if self.pause else ""
        return "; ".join(filter(None, ("other writers continue its stream too", lost, waiting)))


def may_run_again(now: float, until: float) -> bool:
    """Whether a command that lost to another writer at ``now`` is decided again, if its time is over at ``until``."""
    return now < until
