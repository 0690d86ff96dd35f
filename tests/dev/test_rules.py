"""Which paths count, by default and by what the config says."""

from __future__ import annotations

import pytest

from sockmgr.dev.rules import Rules


def rules(**more: tuple[str, ...]) -> Rules:
    return Rules("/home/me/shop", ["/home/me/shop"], **more)


@pytest.mark.parametrize(
    "path",
    [
        "shop/views.py", "templates/base.html", "static/site.css", "server.js", ".env",
        ".env.local", "sockmgr.toml", "locale/de/messages.po", "fast.cpython-311.so",
    ],
)  # fmt: skip
def test_source_templates_and_settings_count(path: str) -> None:
    assert rules().counts(f"/home/me/shop/{path}")


@pytest.mark.parametrize(
    "path",
    [
        ".git/config.py", ".venv/lib/python3.11/site-packages/x.py", "venv/x.py",
        "shop/__pycache__/views.py", "node_modules/a/index.js", "build/lib/shop/views.py",
        "shop.egg-info/x.py", ".mypy_cache/x.py", "db.sqlite3", "shop.log", "data.json",
        "shop/.#views.py", "shop/views.py~", "shop/.views.py.swp", "shop/#views.py#", "4913",
        "shop/views.py.new", "Makefile",
    ],
)  # fmt: skip
def test_repositories_environments_caches_builds_data_and_copies_of_editors_do_not(
    path: str,
) -> None:
    assert not rules().counts(f"/home/me/shop/{path}")


def test_what_is_outside_does_not_count() -> None:
    assert not rules().counts("/home/me/shopping/a.py")
    assert not rules().counts("/home/me/a.py")
    assert not rules().enters("/home/me")


def test_a_file_that_is_named_counts_wherever_it_is() -> None:
    found = rules().also(["/opt/lib/site-packages/flask/app.py"])
    assert found.counts("/opt/lib/site-packages/flask/app.py")
    assert not found.counts("/opt/lib/site-packages/flask/other.py")
    assert found.counts("/home/me/shop/a.py")


def test_a_root_is_looked_into_whatever_it_is_called() -> None:
    found = Rules("/srv", ["/srv/node_modules/mine", "/srv/.hidden"])
    assert found.counts("/srv/node_modules/mine/index.js")
    assert found.counts("/srv/.hidden/a.py")
    assert not found.counts("/srv/node_modules/other/index.js")


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("views.py", "shop/views.py", True),
        ("*.css", "static/deep/site.css", True),
        ("static", "static/deep/site.css", True),
        ("static/", "static/deep/site.css", True),
        ("static", "shop/static/site.css", True),
        ("static/deep", "static/deep/site.css", True),
        ("static/deep", "shop/static/deep/site.css", False),
        ("./static/*.css", "static/site.css", True),
        ("stat", "static/site.css", False),
        ("[a]", "[a]/x.py", False),
    ],
)
def test_ignore_takes_names_anywhere_and_paths_from_the_base(
    pattern: str, path: str, ignored: bool
) -> None:
    assert rules(ignore=(pattern,)).counts(f"/home/me/shop/{path}") is not ignored


def test_include_adds_to_the_defaults_and_ignore_wins_over_it() -> None:
    found = rules(include=("*.json", "Makefile"), ignore=("data",))
    assert found.counts("/home/me/shop/config.json")
    assert found.counts("/home/me/shop/Makefile")
    assert found.counts("/home/me/shop/a.py")
    assert not found.counts("/home/me/shop/data/orders.json")
    assert not found.counts("/home/me/shop/node_modules/a/package.json")


def test_paths_are_shown_from_the_base() -> None:
    assert rules().shown("/home/me/shop/a/b.py") == "a/b.py"
    assert rules().shown("/opt/b.py") == "/opt/b.py"


def test_libraries_are_not_the_users_own() -> None:
    for path in ("/home/me/shop/a.py", "/home/me/lib/b.py", "/home/me/shop/x/test.py"):
        assert rules().holds(path), path
    for path in (
        "/usr/lib/python3.11/asyncio/runners.py", "/home/me/shop/.venv/bin/uvicorn", "<string>",
        "/home/me/shop/.venv/lib/python3.11/site-packages/flask/app.py", "node:internal/loader",
        "/usr/lib/python3/dist-packages/yaml/__init__.py", "/home/me/shop/node_modules/x/y.js",
    ):  # fmt: skip
        assert not rules().holds(path), path
