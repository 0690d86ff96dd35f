"""docs/nginx.md: what it has for settings.py does in Django what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.pages import ROOT

pytest.importorskip("django")

PAGE = (ROOT / "docs" / "nginx.md").read_text()
PIECES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATICFILES_DIRS = [BASE_DIR / "assets"]
ROOT_URLCONF = "urls"
"""
URLS = """
from django.http import HttpResponse
from django.templatetags.static import static
from django.urls import path
urlpatterns = [
    path("", lambda request: HttpResponse(static("shop.css"))), path("fails", lambda request: 1 / 0)
]
"""
ASK = """
import django, sys
from django.test import Client
django.setup()
answer = Client(raise_request_exception=False).get(sys.argv[1])
print(answer.status_code, answer.content.decode())
"""


def release(directory: Path, shared: Path, css: str) -> Path:
    """Make a release with the settings of the page, and collect its files, as the page says."""
    (directory / "assets").mkdir(parents=True)
    (directory / "assets/shop.css").write_text(css)
    (directory / "urls.py").write_text(URLS)
    pieces = "".join(PIECES)
    assert '"/srv/shop/static"' in pieces
    assert "python manage.py collectstatic --noinput" in PAGE
    text = SETTINGS + pieces.replace('"/srv/shop/static"', repr(str(shared)))
    (directory / "settings.py").write_text(text)
    run(directory, "-m", "django", "collectstatic", "--noinput")
    return directory


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory, env={"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": "."},
        capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_each_release_finds_its_own_static_files_whichever_was_collected_last(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "static"
    releases = [release(tmp_path / css, shared, css) for css in ("old", "new")]
    for directory in releases:
        status, url = run(directory, "-c", ASK, "/").stdout.split()
        assert status == "200"
        assert (shared / url.removeprefix("/static/")).read_text() == directory.name


def test_the_traceback_of_an_answer_500_is_in_the_log(tmp_path: Path) -> None:
    done = run(release(tmp_path / "shop", tmp_path / "static", "css"), "-c", ASK, "/fails")
    assert done.stdout.startswith("500")
    assert done.stderr.count("ZeroDivisionError: division by zero") == 1
