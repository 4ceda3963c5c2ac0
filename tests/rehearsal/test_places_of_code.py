"""Where old and new code come from, what is refused, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import pytest

import uno_actors
import uno_stores
from tests.commands import run_command
from tests.machine import patience
from tests.rehearsal.programs import copied, fill, found, program

pytestmark = pytest.mark.timeout(120)

COUNTS_OTHERWISE = ("before + event.cents)", "before + 1)")
VIEW_DIFFERS = ("difference", "view differs", "totals", 3)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("places")
    program(directory / "old")
    fill(directory / "old", f"lmdb:{directory / 'store'}")
    copied(directory / "store", directory / "backup")
    return directory / "old"


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def committed(root: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "as it is")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The old program in a repository, and the new one in its working tree, both below a directory."""
    root = tmp_path / "repository"
    program(root / "shop" / "src")
    git(root, "init", "-q")
    committed(root)
    text = (root / "shop" / "src" / "till.py").read_text(encoding="utf-8")
    (root / "shop" / "src" / "till.py").write_text(text.replace(*COUNTS_OTHERWISE), encoding="utf-8")
    return root / "shop"


def rehearse(store: Path, *options: str, here: Path) -> tuple[int, dict[str, Any], str]:
    """The exit code, the report, and what was said of errors."""
    ended = run_command("rehearse", "--store", f"lmdb:{store}", "--json", *options, directory=here)
    return ended.returncode, json.loads(ended.stdout or "{}"), ended.stderr


def copies() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("uno-actors-rehearsal-*"))


def test_a_revision_is_compared_with_the_working_tree_and_leaves_no_trace(
    old: Path, repository: Path
) -> None:
    before = copies()
    code, report, _ = rehearse(old.parent / "backup", "till", here=repository)
    assert (code, found(report)) == (1, {VIEW_DIFFERS})
    assert report["old"].startswith("HEAD (")
    assert copies() == before
    assert git(repository, "worktree", "list").count("\n") == 1


def test_a_revision_has_the_files_that_a_clone_has(old: Path, repository: Path) -> None:
    """Attributes that leave files out of release archives, and links that lead out, do not matter."""
    root = repository.parent
    git(root, "checkout", "-q", ".")
    (repository / "src" / "amounts.py").write_text("FACTOR = 1\nREVISION = '$Format:%H$'\n", encoding="utf-8")
    code = (repository / "src" / "till.py").read_text(encoding="utf-8")
    code = code.replace(
        "from dataclasses import", "from amounts import FACTOR, REVISION\nfrom dataclasses import", 1
    )
    code += "\nassert REVISION.startswith('$')\n"
    (repository / "src" / "till.py").write_text(code, encoding="utf-8")
    (root / ".gitattributes").write_text("amounts.py export-ignore export-subst\n", encoding="utf-8")
    (root / "elsewhere").symlink_to("../../nowhere")
    (root / "with blank and ü").write_text("", encoding="utf-8")
    committed(root)
    before = {path.name for path in (root / ".git").iterdir()}
    (repository / "src" / "amounts.py").write_text("FACTOR = 2\nREVISION = '$'\n", encoding="utf-8")
    exit_code, report, errors = rehearse(old.parent / "backup", "till", here=repository)
    assert (exit_code, report["findings"], errors) == (0, [], "")
    assert {path.name for path in (root / ".git").iterdir()} == before


def test_the_only_configuration_file_need_not_be_named(old: Path, repository: Path) -> None:
    (repository / "shop.toml").write_text(
        '[system]\nname = "shop"\n[aggregates]\ntypes = ["till:Till"]\n', encoding="utf-8"
    )
    committed(repository)
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    ended = run_command(
        "rehearse",
        "--store",
        f"lmdb:{old.parent / 'backup'}",
        "--json",
        directory=repository,
        environment=environment,
    )
    report = json.loads(ended.stdout)
    assert report["compared"]["streams"] == 3  # of tills, the only aggregates in the file
    assert ("note", "has no class in either", "Purse", 3) in found(report)


def test_a_virtual_environment_runs_what_is_installed_there(old: Path, tmp_path: Path) -> None:
    directory = tmp_path / "production"
    venv.create(directory, symlinks=True, with_pip=False)
    (packages,) = directory.glob("lib/python*/site-packages")
    installed = [uno_actors.__file__, uno_stores.__file__]
    ours = [sysconfig.get_path("purelib"), *(str(Path(file or "").parent.parent) for file in installed)]
    (packages / "all.pth").write_text("\n".join([*ours, str(old)]), encoding="utf-8")
    new = program(tmp_path / "new", COUNTS_OTHERWISE)
    environment = {**os.environ, "PYTHONPATH": str(new)}  # which must not hide what is installed
    ended = run_command(
        "rehearse", "till", "--store", f"lmdb:{old.parent / 'backup'}", "--json",
        "--old", str(directory), "--new", str(new),
        environment=environment,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert found(json.loads(ended.stdout)) == {VIEW_DIFFERS}


def test_a_virtual_environment_without_this_release_is_refused(old: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", symlinks=True, with_pip=False)
    code, _, said = rehearse(old.parent / "backup", "till", "--old", str(tmp_path / "empty"), here=old)
    assert code == 2
    assert "has no uno_actors that can rehearse" in said


REFUSED: dict[str, tuple[list[str], str]] = {
    "a name that is nothing": (["till", "--old", "nowhere"], "nowhere is not a directory, nor a revision"),
    "a module that is not there": (["tills", "--old", "."], "code: module 'tills' cannot be imported"),
    "a directory that is not searched": (
        ["tills", "--old", "."],
        "Its packages are looked for in ., or where --path says",
    ),
    "a module without the program": (
        ["json", "--old", "."],
        "neither program reads any event of the store, such as Paid v1 at position 1: event type 'Paid' is not",
    ),
    "a file that is not there": (["shop.toml", "--old", "."], "shop.toml"),
    "no source": (["--old", "."], "name the program's configuration file, or its modules"),
    "a time that is none": (["till", "--old", ".", "--since", "monday"], "--since is a time such as"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_with_the_reason(old: Path, case: str) -> None:
    options, reason = REFUSED[case]
    code, _, said = rehearse(old.parent / "backup", *options, here=old)
    assert code == 2
    assert reason in " ".join(said.replace("│", " ").split())


def test_new_code_that_fails_when_imported_is_told_from_old_code(old: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new", ("from typing import Any\n", "raise RuntimeError('no licence')\n"))
    code, _, said = rehearse(old.parent / "backup", "till", "--old", str(old), "--new", str(new), here=old)
    assert code == 2
    assert "new code: module 'till' cannot be imported (RuntimeError: no licence)" in said


def test_a_projection_that_cannot_be_made_is_named(old: Path, tmp_path: Path) -> None:
    no_table = (
        "class Totals(Projection[Paid]):\n",
        "class Totals(Projection[Paid]):\n    def __init__(self): 1 / 0\n\n",
    )
    new = program(tmp_path / "new", no_table)
    code, _, said = rehearse(old.parent / "backup", "till", "--old", str(old), "--new", str(new), here=old)
    assert code == 2
    assert "new code: projection 'totals' cannot be made (ZeroDivisionError: division by zero)" in said


def test_code_that_ends_its_process_is_reported_with_its_last_words(old: Path, tmp_path: Path) -> None:
    ending = "import os, sys; print('bye', file=sys.stderr, flush=True); os._exit(7)\n"
    new = program(tmp_path / "new", ("from typing import Any\n", ending))
    code, _, said = rehearse(old.parent / "backup", "till", "--old", str(old), "--new", str(new), here=old)
    assert code == 2
    assert "new code: its process has ended: exit code 7. bye" in said


def test_code_that_is_imported_from_elsewhere_is_refused(old: Path, tmp_path: Path) -> None:
    """As with an installed package, whose directory in the repository is neither . nor src."""
    hidden = program(tmp_path / "new" / "lib", COUNTS_OTHERWISE)
    environment = {**os.environ, "PYTHONPATH": str(old)}
    options = ["--store", f"lmdb:{old.parent / 'backup'}", "--old", str(old), "--new", str(hidden.parent)]
    ended = run_command("rehearse", "till", *options, environment=environment)
    assert ended.returncode == 2
    assert "the new code is not that of" in ended.stderr
    assert "Name the directory of its packages by --path" in ended.stderr
    options += ["--path", ".", "--path", "lib"]
    assert "view differs" in run_command("rehearse", "till", *options, environment=environment).stdout


def test_what_a_program_prints_does_not_disturb(old: Path, tmp_path: Path) -> None:
    new = program(
        tmp_path / "new",
        ("from typing import Any\n", "print('hello from the import')\n"),
        ("        self.cents += event.cents\n", "        print('applied'); self.cents += event.cents\n"),
    )
    code, report, _ = rehearse(old.parent / "backup", "till", "--old", str(old), "--new", str(new), here=old)
    assert (code, report["findings"]) == (0, [])


def test_ctrl_c_ends_the_processes_and_removes_the_copy(old: Path, repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    slow = f"        import os, time, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
    slow += "        time.sleep(60)\n"
    text = (repository / "src" / "till.py").read_text(encoding="utf-8")
    apply = "        self.cents += event.cents\n"
    (repository / "src" / "till.py").write_text(text.replace(apply, slow + apply), encoding="utf-8")
    before = copies()
    command = [sys.executable, "-m", "uno_actors", "rehearse", "till", "-s", f"lmdb:{old.parent / 'backup'}"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        late = time.monotonic() + patience(60)
        while not mark.exists() or not mark.read_text(encoding="utf-8"):
            assert time.monotonic() < late
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        assert len(copies()) == len(before) + 1
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=patience(30))
    assert running.returncode == 130
    assert copies() == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text(encoding="utf-8")), 0)
