"""A Django project over an actor system: in one process, and in the servers that fork, reload and restart it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.machine import patience
from tests.web.servers import ROOT, Running, gunicorn, started

SITE = "tests.web.site:application"


def sell(server: Running, **headers: str) -> httpx.Response:
    with server.new_client() as client:  # sync workers keep no connection
        return client.get("/theatres/a/sales?seats=1", headers=headers)


def free(server: Running) -> int:
    with server.new_client() as client:
        return int(client.get("/theatres/a").json()["free"])


# --- gunicorn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [[], ["--workers", "2", "--preload"], ["--threads", "4"]],
    ids=["one", "two with preload", "threads"],
)
def test_gunicorn_serves_and_stops_and_nothing_is_lost(tmp_path: Path, options: list[str]) -> None:
    words = gunicorn(tmp_path, SITE, *options)
    for before in (100, 95):
        with started(words, tmp_path, STORE="lmdb:store") as server:
            assert [sell(server).json()["free"] for _ in range(5)] == list(range(before - 1, before - 6, -1))
            assert server.stop() == 0
            assert "Traceback" not in server.text


def test_a_system_that_the_master_used_before_it_forked_stays_the_masters(tmp_path: Path) -> None:
    """The workers open the store for themselves, and the end of a worker leaves that of the master alone."""
    words = gunicorn(tmp_path, SITE, "--preload", "--workers", "2", "--max-requests", "4")
    with started(words, tmp_path, STORE="lmdb:store", IN_MASTER="1") as server:
        replies = [sell(server).json()["free"] for _ in range(20)]
        assert replies == list(range(98, 78, -1))
        assert server.stop() == 0
        assert "Traceback" not in server.text


def test_gunicorn_reloads_without_a_lost_command(tmp_path: Path) -> None:
    with started(gunicorn(tmp_path, SITE, "--preload"), tmp_path, STORE="lmdb:store") as server:
        first = server.process_that_answers()
        sell(server)
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: (server.process_that_answers() or first) != first)
        assert free(server) == 99
        assert server.stop() == 0
        assert "Traceback" not in server.text


def test_a_worker_that_is_replaced_at_its_limit_of_requests_has_stopped_its_system(tmp_path: Path) -> None:
    """With a store in memory: what the new worker has shows that it is a new one."""
    with started(gunicorn(tmp_path, SITE, "--max-requests", "6"), tmp_path) as server:
        first = server.process_that_answers()
        while server.process_that_answers() in (first, None):
            pass
        assert free(server) == 100
        assert server.stop() == 0
        assert "Traceback" not in server.text


def test_a_worker_whose_supervisors_give_up_is_replaced(tmp_path: Path) -> None:
    with started(gunicorn(tmp_path, SITE), tmp_path, BREAKS="1") as server:
        first = server.process_that_answers()
        sell(server)
        server.wait_until(lambda: (server.process_that_answers() or first) != first)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("variables", "is_started"), [({}, False), ({"EAGER": "1"}, True)], ids=["first use", "first request"]
)
def test_the_system_starts_when_the_setting_says(
    tmp_path: Path, variables: dict[str, str], is_started: bool
) -> None:
    with started(gunicorn(tmp_path, SITE), tmp_path, **variables) as server:
        with server.new_client() as client:
            assert client.get("/state").json() == {"started": is_started}
        assert server.stop() == 0


def test_a_hook_of_gunicorn_starts_the_system_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text(
        "def post_worker_init(worker): from uno_actors.django import system; system()\n"
    )
    with started(gunicorn(tmp_path, SITE, "-c", "conf.py", "--preload"), tmp_path) as server:
        with server.new_client() as client:
            assert client.get("/state").json() == {"started": True}
        assert server.stop() == 0


# --- manage.py ---------------------------------------------------------------------------------------------


def manage(directory: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.web.site", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_of_manage_py_is_the_command_line(tmp_path: Path) -> None:
    shown = manage(tmp_path, "uno_actors", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "handlers" in shown.stdout
    assert manage(tmp_path, "uno_actors", "nonsense").returncode == 2
    missing = manage(tmp_path, "uno_actors", "store", "info", "--store", "lmdb:none")
    assert (missing.returncode, missing.stderr.startswith("error: ")) == (1, True)


def test_other_commands_start_no_system(tmp_path: Path) -> None:
    shown = manage(tmp_path, "check", STORE="lmdb:store")
    assert (shown.returncode, (tmp_path / "store").exists()) == (0, False), shown.stderr


def test_a_system_that_a_command_used_stops_with_it(tmp_path: Path) -> None:
    program = (
        "from uno_actors.django import system; from tests.web.theatre import *;"
        " print(system().aggregate(Theatre, 'a').ask(SellSeats(seats=1)).get(timeout=10))"
    )
    for count in (99, 98):
        shown = manage(tmp_path, "shell", "-c", program, STORE="lmdb:store")
        assert (shown.returncode, shown.stdout.split()[-1]) == (0, str(count)), shown.stderr


def test_the_development_server_serves_reloads_and_stops(tmp_path: Path) -> None:
    """The process that watches the files imports the project too, and starts nothing."""
    module = tmp_path / "watched.py"
    module.write_text("")
    (tmp_path / "manage.py").write_text(
        "import sys\nimport watched\nimport tests.web.site\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    )
    port = free_port()
    log = tmp_path / "log.txt"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-u", "manage.py", "runserver", f"127.0.0.1:{port}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "STORE": "lmdb:store", "RELOADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:

            def answer(path: str) -> str | None:
                try:
                    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=patience(10)).text
                except httpx.TransportError:
                    assert process.poll() is None and "Traceback" not in log.read_text(), log.read_text()  # noqa: PT018
                    return None

            def first_answer(path: str, *not_these: str | None) -> str:
                while (found := answer(path)) in (None, *not_these):
                    time.sleep(0.05)
                assert found is not None
                return found

            first = first_answer("/process")
            assert json.loads(first_answer("/theatres/a/sales?seats=1")) == {"free": 99}
            time.sleep(1.1)  # a file that has changed within the second is not noticed
            module.write_text("changed = True\n")
            first_answer("/process", first)
            assert json.loads(first_answer("/theatres/a/sales?seats=1")) == {"free": 98}
            os.killpg(process.pid, signal.SIGINT)
            process.wait(patience(20))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- in one process ----------------------------------------------------------------------------------------


def run(tmp_path: Path, program: str) -> str:
    """The output of a program in a project; Django is configured once in a process."""
    file = tmp_path / "program.py"
    file.write_text(f"import tests.web.site\nfrom tests.web.theatre import *\n{program}")
    ran = subprocess.run(
        [sys.executable, file],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_errors_of_views_are_problems(tmp_path: Path) -> None:
    program = """
from django.test import Client
client = Client(raise_request_exception=False)
for path in ("/theatres/a/sales?seats=101", "/theatres/a/sales?seats=x", "/theatres/" + "x" * 256):
    answer = client.get(path)
    print(answer.status_code, answer.headers["content-type"])
key = {"Idempotency-Key": "k"}
print([client.get(f"/theatres/a/sales?seats={n}", headers=key).status_code for n in (1, 1, 2)])
"""
    assert run(tmp_path, program).splitlines() == [
        "409 application/problem+json",
        "500 text/html; charset=utf-8",
        "422 application/problem+json",
        "[200, 200, 422]",
    ]


def test_threads_that_need_the_system_at_once_share_one(tmp_path: Path) -> None:
    program = """
import threading
from uno_actors.django import system
found = []
threads = [threading.Thread(target=lambda: found.append(system())) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(map(id, found))))
"""
    assert run(tmp_path, program) == "20 1\n"


def test_a_forked_process_has_a_system_of_its_own_and_leaves_that_of_its_parent_alone(tmp_path: Path) -> None:
    program = """
import os, sys
from uno_actors.django import stop, system
def sell(): return system().aggregate(Theatre, "a").ask(SellSeats(seats=1)).get(timeout=10)
parents = system()
print(sell(), flush=True)
child = os.fork()
if child == 0:
    parents.stop_sync()
    print(sell(), system() is parents, flush=True)
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sell(), system() is parents)
stop()
stop()
print(sell(), system() is parents)
"""
    assert run(tmp_path, program).splitlines() == ["99", "99 False", "0 98 True", "99 False"]


def test_handlers_finish_what_they_have_when_the_program_ends(tmp_path: Path) -> None:
    """Also a plain one, which needs a thread that may not run yet."""
    program = """
import time
from django.test.utils import override_settings
from uno_actors import ActorSystem, subscribe
from uno_actors.django import system

@subscribe(SeatsSold, name="slow")
def slow(event):
    time.sleep(0.2)
    print("handled", event.seats)

make = lambda: ActorSystem("memory:", aggregates=[Theatre], handlers=[slow])
changed = override_settings(UNO_ACTORS={"SYSTEM": make})
changed.enable()
for seats in (1, 2, 3): system().aggregate(Theatre, "a").ask(SellSeats(seats=seats)).get(timeout=10)
print("ends")
"""
    assert run(tmp_path, program).splitlines() == ["ends", "handled 1", "handled 2", "handled 3"]


def test_a_test_that_changes_the_setting_gets_the_system_of_its_own(tmp_path: Path) -> None:
    program = """
from django.test import override_settings
from uno_actors.django import system
from uno_actors import ActorSystem
first = system()
with override_settings(UNO_ACTORS={"SYSTEM": lambda: ActorSystem("memory:", name="other")}):
    print(system().name, repr(first))
print(system().name)
"""
    assert run(tmp_path, program).splitlines() == ["other <ActorSystem system (stopped)>", "system"]


def test_a_shell_whose_supervisors_give_up_continues(tmp_path: Path) -> None:
    program = """
from django.test import override_settings
from uno_actors import SystemNotRunning
from uno_actors.django import system
with override_settings(UNO_ACTORS={"SYSTEM": failing_system}):
    system().aggregate(Theatre, "a").ask(SellSeats(seats=1)).get(timeout=10)
    try:
        while True: system().aggregate(Theatre, "a").ask(CountSeats()).get(timeout=10)
    except SystemNotRunning as error:
        print(error, system().failure)
"""
    assert "gave up" in run(tmp_path, program)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("None", 'UNO_ACTORS is not set: write UNO_ACTORS = {"CONFIG": BASE_DIR'),
        ("{}", "UNO_ACTORS needs either CONFIG, a configuration file, or SYSTEM, a function"),
        ('{"CONFIG": "a.toml", "SYSTEM": list}', "needs either CONFIG"),
        ('{"STORE": "lmdb:x"}', "has 'STORE'; the keys are: CONFIG, EXIT_CODE, OPTIONS, START, SYSTEM"),
        ('{"SYSTEM": list, "OPTIONS": {"name": "x"}}', "OPTIONS of UNO_ACTORS go with CONFIG"),
        ('{"SYSTEM": list, "START": "now"}', "one of 'first use', 'first request'; found 'now'"),
        ('{"SYSTEM": list}', "must be a function that makes a system; found []"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(tmp_path: Path, setting: str, said: str) -> None:
    program = f"""
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from uno_actors.django import system
with override_settings(UNO_ACTORS={setting}):
    try: system()
    except ImproperlyConfigured as error: print(error)
"""
    assert said in run(tmp_path, program)


def test_a_file_can_be_the_setting_and_names_the_store_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "theatre.toml").write_text(
        '[system]\nname = "from a file"\nstore = "lmdb:store"\n\n[aggregates]\ntypes = ["tests.web.theatre:Theatre"]\n'
    )
    program = """
from django.core.management import CommandError, call_command
from django.test import override_settings
from uno_actors.django import stop, system
with override_settings(UNO_ACTORS={"CONFIG": "theatre.toml", "OPTIONS": {"ask_timeout": 3}}):
    print(system().aggregate(Theatre, "a").ask(SellSeats(seats=1)).get(timeout=10), system().name)
    stop()  # a process opens a store once
    call_command("uno_actors", "store", "info")
    try: call_command("uno_actors", "store", "nonsense")
    except CommandError as error: print(error.returncode)
"""
    lines = run(tmp_path, program).splitlines()
    assert (lines[0], lines[-1]) == ("99 from a file", "2")
    assert any("1" in line and "event" in line for line in lines[1:-1]), lines


def test_without_django_the_import_names_the_extra() -> None:
    program = "import sys; sys.modules['django'] = None\nimport uno_actors.django"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'uno-actors[django]'" in ran.stderr.splitlines()[-1]
