"""Runs programs and commands for the tests of the documentation, each in its own process that starts warm.

A fresh interpreter takes half a second to import `uno_actors`. This process imports it once and then forks for each
request, so that a program finds what a new interpreter would give it, and is there at once.

A request is a line of JSON on standard input: ``directory``, ``environment``, and ``words``, of which the first is a
file or ``uno-actors``. The answer is a line on standard output: ``code``, and ``output`` and ``errors`` as text.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import uno_actors.testing  # noqa: F401 - imported for the programs, and with it everything public

(COMMAND,) = entry_points(group="console_scripts", name="uno-actors")
MAIN = COMMAND.load()


def become(request: dict[str, Any], output: int, errors: int) -> int:
    """Run the requested program in the child and return its exit code."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["directory"])
    os.environ |= request["environment"]
    sys.path[0] = request["directory"]
    program, *arguments = words = request["words"]
    sys.argv = words
    try:
        if program == "uno-actors":
            MAIN()
        else:
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does with a program that raises
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Fork a child of this process that runs the requested program."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os._exit(become(request, output.fileno(), errors.fileno()))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        errors.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "output": output.read().decode(),
            "errors": errors.read().decode(),
        }


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    sys.path.insert(0, str(Path.cwd()))
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
