"""The error page and livereload in a real browser, which nobody touches meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.dev.livereload import PORT
from tests.e2e.browser import Browser
from tests.e2e.dev import Dev
from tests.e2e.dev_project import Project

PAGE = """\
import os
from shop.version import VERSION

TAG = f'<script async src="{os.environ.get("SOCKMGR_LIVERELOAD", "")}"></script>'

async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/html")]
    body = f"<title>shop</title><h1>version {VERSION}</h1>{TAG}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


LOOKS = (("light", 1000, False), ("dark", 1000, True), ("narrow", 390, False))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    (project.package / "main.py").write_text(PAGE)
    return project


def url(dev: Dev) -> str:
    host, port = dev.address()
    return f"http://{host}:{port}/"


def test_the_error_page_shows_the_error_follows_it_and_goes_when_it_is_mended(
    browser: Browser, project: Project
) -> None:
    project.save("1", "def price(item):\n    return item['price'] / 0\n\nprice({'price': 100})")
    with project.dev() as dev:
        dev.see(r"^web: requests are answered with this error")
        browser.resize(1000)
        browser.open(url(dev))
        text = browser.wait_text("ZeroDivisionError")
        assert "return item['price'] / 0" in text
        assert "shop/version.py" in text
        for name, width, dark in LOOKS:
            browser.resize(width, dark=dark)
            assert browser.screenshot(f"error-page-{name}").stat().st_size > 10_000
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        project.save("2", "import a_module_that_nobody_installed")
        browser.wait_text("ModuleNotFoundError")
        project.save("3")
        browser.wait_text("version 3")


def test_livereload_shows_each_edit_and_nothing_of_a_broken_one(
    browser: Browser, project: Project
) -> None:
    with project.dev("--livereload") as dev:
        dev.see(r'^livereload: put <script async src="http://127\.0\.0\.1:\d+/livereload\.js">')
        browser.resize(600, 300)
        browser.open(url(dev))
        browser.wait_text("version 1")
        for version in ("2", "3", "4"):
            project.save(version)
            browser.wait_text(f"version {version}")
        browser.evaluate("window.same = true")
        project.save("5", "1 / 0")
        dev.see(r"^web 5 failed: 4 keeps serving")
        assert browser.evaluate("window.same") is True
        assert "version 4" in browser.text
        project.save("6")
        browser.wait_text("version 6")
        browser.screenshot("livereload")


def test_a_page_that_nobody_sees_is_loaded_when_it_is_seen_again(
    browser: Browser, project: Project
) -> None:
    with project.dev("--livereload") as dev:
        dev.see("^web 1 serves")
        browser.open(url(dev))
        browser.wait_text("version 1")
        with browser.behind_another():
            project.save("2")
            dev.wait_answer("version 2")
            assert "version 1" in browser.text
        browser.wait_text("version 2")


def test_a_page_that_was_open_when_dev_ended_finds_the_next(
    browser: Browser, project: Project
) -> None:
    with project.dev("--livereload") as dev:
        if f":{PORT}/" not in dev.see("^livereload: put .*$")[0]:
            pytest.skip(f"another dev has port {PORT}")
        host, port = dev.address()
        browser.open(url(dev))
        browser.wait_text("version 1")
    project.save("22")  # of another size: no dev is there to delete bytecode of this second
    listen = f"http=tcp://{host}:{port}"
    with Dev(project.directory, "--listen", listen, "--livereload", "shop.main:app"):
        browser.wait_text("version 22")


def test_a_page_without_livereload_stays_as_it_is(browser: Browser, project: Project) -> None:
    with project.dev() as dev:
        dev.see("^web 1 serves")
        browser.open(url(dev))
        browser.wait_text("version 1")
        project.save("2")
        dev.wait_answer("version 2")
        assert "version 1" in browser.text
        assert "livereload" not in dev.text
