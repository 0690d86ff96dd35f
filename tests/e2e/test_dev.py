"""`sockmgr dev` with a real server in a real terminal: saves, broken code, the config."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.apps import ROOT
from tests.e2e.dev import Dev
from tests.e2e.dev_project import APP, Project

FAIL = """\
        try:
            raise OSError("no database")
        except OSError:
            import traceback
            text = traceback.format_exc()
            await send({"type": "lifespan.startup.failed", "message": text})
            return
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_save_serves_and_says_so(project: Project) -> None:
    with project.dev() as dev:
        dev.see(r"^web 1 serves on http://127\.0\.0\.1:\d+ in \d\.\d\d s$")
        dev.see(r"^keys: r reload, s status, q quit$")
        assert "version 1" in dev.get()
        project.save("2")
        dev.see(r"^web 1 → 2 in \d\.\d\d s, shop/version\.py$")
        assert "version 2" in dev.get()
        project.save("2")  # the same again
        project.save("3")
        dev.see(r"^web 2 → 3 in ")
        assert "version 3" in dev.get()
        assert "\nweb 3 → " not in dev.text


def test_a_boot_that_somebody_waits_for_is_not_slowed_down(project: Project) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        project.save("2", "import os; print('nice', os.nice(0))")
        dev.see(rf"^web@2\.1 \| nice {os.nice(0)}$")


def test_lines_of_a_worker_have_its_name_and_a_colour(project: Project) -> None:
    project.save("1", "print('hello \\x1b[31mred\\x1b[0m \\x1b]0;title\\x07')")
    with project.dev() as dev:
        dev.see(r"^web@1\.1 \| hello red \\x1b\]0;title\\x07$")
        assert "\x1b[36mweb@1.1 |\x1b[0m hello \x1b[31mred" in dev.raw
        assert "\x1b]0;" not in dev.raw


def test_broken_code_shows_its_error_and_the_old_goes_on_serving(project: Project) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        project.save("2", "1 / 0")
        dev.see(r"^ZeroDivisionError: division by zero$")
        dev.see(r"^  shop/version\.py:1 in <module>\n❱ 1 1 / 0")
        dev.see(r"^web 2 failed: 1 keeps serving, shop/version\.py$")
        assert "Traceback" not in dev.text
        assert "version 1" in dev.get()
        project.save("3")
        dev.see(r"^web 1 → 3 in ")
        assert "version 3" in dev.get()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = (", r"^SyntaxError: '\(' was never closed$"),
        ("import nonsense", r"^ModuleNotFoundError: No module named 'nonsense'$"),
        ("import os; os._exit(3)", r"^it exited with status 3$"),
        ("import os; os.kill(os.getpid(), 11)", r"^it was killed by signal 11 \(SEGV\)$"),
    ],
)
def test_whatever_ends_a_start_is_told(project: Project, code: str, error: str) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        project.save("2", code)
        dev.see(error)
        dev.see(r"^web 2 failed: 1 keeps serving")
        assert "version 1" in dev.get()


def test_an_exception_in_the_start_up_of_the_lifespan_is_told(project: Project) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        main = project.package / "main.py"
        main.write_text(
            APP.replace('        await send({"type": "lifespan.startup.complete"})', FAIL)
        )
        dev.see(r"^OSError: no database$")
        dev.see(r"^  shop/main\.py:8 in app$")
        dev.see(r"^web 2 failed: 1 keeps serving, shop/main\.py$")


def test_who_is_stopped_shortly_after_a_save_is_not_told_that_the_old_code_keeps_serving(
    project: Project,
) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        project.save("2", "import time; print('starting'); time.sleep(1000)")
        dev.see(r"^web@2\.1 \| starting$")
        dev.press("\x03")
        assert dev.wait() == 0
        assert "keeps serving" not in dev.text
        assert "failed" not in dev.text


def test_code_that_hangs_makes_way_for_the_next_save(project: Project) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        project.save("2", "import time; print('hanging'); time.sleep(1000)")
        dev.see(r"^web@2\.1 \| hanging$")
        project.save("3")
        dev.see(r"^web 2: given up for newer code$")
        dev.see(r"^web 1 → 3 in ")
        assert "version 3" in dev.get()


def test_code_that_hangs_in_the_first_start_makes_way_too(project: Project) -> None:
    project.save("1", "import time; print('hanging'); time.sleep(1000)")
    with project.dev() as dev:
        dev.see(r"^web@1\.1 \| hanging$")
        project.save("2")
        dev.see(r"^web 2 serves on .*, shop/version\.py$")
        assert "version 2" in dev.get()


def test_code_that_hangs_for_good_fails_when_its_time_is_over(project: Project) -> None:
    with project.dev("--ready-timeout", "6") as dev:
        dev.see("web 1 serves")
        project.save("2", "import time; print('hanging'); time.sleep(1000)")
        dev.see(r"^worker 2\.1 was not ready within 6 s$")
        dev.see(r"^web 2 failed: 1 keeps serving, shop/version\.py$")
        assert "version 1" in dev.get()


def test_a_project_that_is_deleted_and_made_again_is_served_again(tmp_path: Path) -> None:
    project = Project(tmp_path / "shop")
    with project.dev(control=tmp_path / "control.sock") as dev:
        dev.see("web 1 serves")
        shutil.rmtree(project.directory)
        dev.see(r"^error: service\.web\.cwd = \.: the directory .* has been deleted$")
        assert "version 1" in dev.get()
        Project(project.directory).save("2")
        dev.see(r"^web 1 → \d in ")
        dev.wait_answer("version 2")


def test_an_application_that_edits_itself_is_told_about_and_paused(project: Project) -> None:
    code = "from pathlib import Path; f = Path(__file__).with_name('count.py'); f.touch()\n"
    project.save("1", f"{code}f.write_text(f.read_text() + '#')")
    with project.dev() as dev:
        dev.see(r"^every start seems to change shop/count\.py: reloads pause")


def test_files_of_a_traceback_are_watched_outside_the_project_too(tmp_path: Path) -> None:
    project, library = Project(tmp_path / "p"), tmp_path / "library" / "helper.py"
    library.parent.mkdir()
    library.write_text("x = 1\n")
    with project.dev(env={"PYTHONPATH": f"{library.parent}:{ROOT}"}) as dev:
        dev.see("web 1 serves")
        library.write_text("raise ValueError('from outside')\n")
        project.save("2", "import helper")
        dev.see(r"^ValueError: from outside$")
        dev.see(r"^web 2 failed")
        library.write_text("x = 2\n")
        dev.see(r"^web 1 → 3 in \d\.\d\d s, .*/helper\.py$")
        assert "version 2" in dev.get()


# --- No code has served yet ----------------------------------------------------------------------

HTML = "Accept: text/html"


def test_requests_are_answered_with_the_error_until_the_code_is_mended(project: Project) -> None:
    project.save("1", "import nonsense")
    with project.dev() as dev:
        dev.see(r"^ModuleNotFoundError: No module named 'nonsense'$")
        dev.see(r"^web: requests are answered with this error until it is mended$")
        answer = dev.get(HTML)
        assert answer.startswith("HTTP/1.1 503 ")
        assert "No module named &#x27;nonsense&#x27;" in answer
        assert "import nonsense" in answer
        assert "<pre" not in dev.get()
        project.save("1", "1 / 0")
        dev.see(r"^ZeroDivisionError: division by zero$")
        dev.wait_answer("ZeroDivisionError")
        dev.see(r"^web 3 failed: nothing serves yet, shop/version\.py$")
        project.save("4")
        dev.see(r"^web 4 serves on http://\S+ in .*, shop/version\.py$")
        assert "version 4" in dev.get()
        project.save("5", "import nonsense")
        dev.see("web 5 failed: 4 keeps serving")
        assert "version 4" in dev.get()


def test_requests_wait_where_no_error_page_is_wanted(project: Project) -> None:
    config = project.directory / "sockmgr.toml"
    config.write_text(
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n'
        'command = ["uvicorn", "shop.main:app"]\n[dev]\nerror_page = false\n'
    )
    project.save("1", "import nonsense")
    with Dev(project.directory) as dev:
        dev.see(r"^web: requests wait until its code is mended$")
        with socket.create_connection(dev.address(), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            project.save("2")
            assert b"200 OK" in sock.recv(1000)
        assert "503" not in dev.text


def test_nobody_waits_for_a_service_without_listeners(project: Project) -> None:
    config = project.directory / "sockmgr.toml"
    config.write_text("[service.css]\ncommand = ['sh', '-c', 'exit 1']\n")
    with Dev(project.directory) as dev:
        dev.see(r"^css: it does not run until its code is mended$")


# --- The config ----------------------------------------------------------------------------------


def test_a_changed_config_is_read_and_a_broken_one_is_shown(project: Project) -> None:
    config = project.directory / "sockmgr.toml"
    text = (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n'
        'command = ["uvicorn", "shop.main:app"]\nworkers = 4\n'
    )
    main = project.package / "main.py"
    main.write_text(APP.replace("{VERSION}", "{os.environ.get('WHO')}"))
    config.write_text(text)
    with Dev(project.directory) as dev:
        dev.see("web 1 serves")
        assert len(dev.status()["services"]["web"]["workers"]) == 1
        config.write_text(text + 'env = { WHO = "me" }\n')
        dev.see(r"^web 1 → 2 in .*, sockmgr\.toml$")
        assert "version me" in dev.get()
        config.write_text(text + "wrokers = 3\n")
        dev.see(r"^error: .*sockmgr\.toml:6:1: service\.web\.wrokers is not a known key$")
        assert "version me" in dev.get()
        config.write_text(text + '[dev]\nwatch = ["elsewhere"]\n')
        dev.see(r"^web 2 → 3 in .*, sockmgr\.toml$")
        project.save("2")  # is not watched any more
        (project.directory / "elsewhere").mkdir()
        (project.directory / "elsewhere" / "new.py").write_text("")
        dev.see(r"^web 3 → 4 in .*, elsewhere/new\.py$")


def test_livereload_is_switched_on_and_off_by_the_config(project: Project) -> None:
    config = project.directory / "sockmgr.toml"
    text = (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n'
        'command = ["uvicorn", "shop.main:app"]\n[dev]\n'
    )
    main = project.package / "main.py"
    main.write_text(APP.replace("{VERSION}", "{os.environ.get('SOCKMGR_LIVERELOAD')}"))
    config.write_text(text)
    with Dev(project.directory) as dev:
        dev.see("^web 1 serves")
        assert "version None" in dev.get()
        config.write_text(f"{text}livereload = true\n")
        told = dev.see(r'^livereload: put <script async src="(http://127\.0\.0\.1:(\d+)/\S+)">')
        assert f"version {told[1]}" in dev.get()
        with socket.create_connection(("127.0.0.1", int(told[2])), timeout=20) as page:
            page.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert page.recv(1000).startswith(b"HTTP/1.1 200 ")
            config.write_text(text)
            while page.recv(1000):
                pass
        dev.see("^web 2 → 3")
        assert "version None" in dev.get()


@pytest.mark.skipif(sys.flags.optimize > 0, reason="asserts are needed")
def test_a_storm_of_saves_is_a_handful_of_reloads_and_ends_with_the_last(project: Project) -> None:
    with project.dev() as dev:
        dev.see("web 1 serves")
        for number in range(5000):
            project.save(str(number))
        dev.wait_answer("version 4999")
        dev.see("→")
        # One after the other for as long as it lasts, however long that is on a busy machine.
        assert dev.text.count(" → ") <= 5000 / 50
