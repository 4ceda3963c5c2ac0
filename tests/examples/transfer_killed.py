"""The transfer example, killed with SIGKILL after a given number of writes to the store."""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from uno_stores.lmdb.writer import Writer

path, kill_after = sys.argv[1], int(sys.argv[2])
submit = Writer.submit
writes = 0


async def submit_and_perhaps_die(self: Writer, work: Any) -> Any:
    global writes  # noqa: PLW0603
    result = await submit(self, work)
    writes += 1
    if writes == kill_after:  # it is on disk, and no caller knows
        os.kill(os.getpid(), signal.SIGKILL)
    return result


Writer.submit = submit_and_perhaps_die  # type: ignore[method-assign]
example = Path(__file__).parents[2] / "examples" / "transfer"
sys.path.insert(0, str(example))
sys.argv = ["transfer.py", path]
runpy.run_path(str(example / "transfer.py"), run_name="__main__")
