"""The error page in a real browser, which nobody touches meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser
from tests.e2e.dev import Dev
from tests.e2e.dev_project import Project

PAGE = """\
from shop.version import VERSION

async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/html")]
    body = f"<title>shop</title><h1>version {VERSION}</h1>".encode()
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
