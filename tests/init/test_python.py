"""Applications are found by reading Python sources, with the names that servers import them by."""

from __future__ import annotations

import pytest

from sockmgr.init.facts import App, Interface
from sockmgr.init.python import apps
from tests.init.sources import FASTAPI, FLASK

ASGI, WSGI = Interface.ASGI, Interface.WSGI
RAW_ASGI = "async def app(scope, receive, send):\n    pass\n"


def found(files: dict[str, str]) -> list[tuple[Interface, str, str]]:
    return [(app.interface, app.framework, app.target) for app in apps(files)]


@pytest.mark.parametrize(
    ("text", "interface", "framework", "name"),
    [
        (FASTAPI, ASGI, "FastAPI", "app"),
        ("import fastapi as f\napi: f.FastAPI = f.FastAPI(title='x')", ASGI, "FastAPI", "api"),
        ("from starlette.applications import Starlette as S\napplication = S()", ASGI, "Starlette",
         "application"),
        ("from litestar import Litestar\napp = Litestar([])", ASGI, "Litestar", "app"),
        ("from quart import Quart\napp = Quart(__name__)", ASGI, "Quart", "app"),
        ("from fasthtml.common import *\napp, rt = fast_app()", ASGI, "FastHTML", "app"),
        ("import falcon.asgi\napp = falcon.asgi.App()", ASGI, "Falcon", "app"),
        ("import falcon\napp = falcon.App()", WSGI, "Falcon", "app"),
        (FLASK, WSGI, "Flask", "app"),
        ("import flask\nclass F(flask.Flask):\n    pass\nshop = F('x')", WSGI, "Flask", "shop"),
        ("from django.core.wsgi import get_wsgi_application\n"
         "application = get_wsgi_application()", WSGI, "Django", "application"),
        (RAW_ASGI, ASGI, "", "app"),
        ("def application(environ, start_response):\n    return []", WSGI, "", "application"),
        ("class A:\n    async def __call__(self, scope, receive, send):\n        pass\napp = A()",
         ASGI, "", "app"),
        ("class A:\n    def __call__(self, environ, start_response):\n        pass\napp = A()",
         WSGI, "", "app"),
        ("try:\n    from fastapi import FastAPI\nexcept ImportError:\n    raise\n"
         "if True:\n    app = FastAPI()", ASGI, "FastAPI", "app"),
        (FASTAPI + "from x import Wrapper\napp = Wrapper(app, key=1)", ASGI, "FastAPI", "app"),
        (FASTAPI + "import socketio\nasgi = socketio.ASGIApp(None, app)", ASGI, "FastAPI", "app"),
        ("from aiohttp import web\napp = web.Application()", Interface.AIOHTTP, "aiohttp", "app"),
        ("import dash\napp = dash.Dash(__name__)\nserver = app.server", WSGI, "Dash", "server"),
        ("from dash import Dash\nx = 1\napp = Dash()\napplication = app.server", WSGI, "Dash",
         "application"),
        ("from flask import Flask\nfrom dash import Dash\nserver = Flask('x')\n"
         "app = Dash(server=server)", WSGI, "Flask", "server"),
        (FLASK + "from asgiref.wsgi import WsgiToAsgi\nasgi_app = WsgiToAsgi(app)", WSGI, "Flask",
         "app"),
    ],
)  # fmt: skip
def test_an_application_is_known_by_what_made_it(
    text: str, interface: Interface, framework: str, name: str
) -> None:
    assert found({"main.py": text})[0] == (interface, framework, f"main:{name}")


@pytest.mark.parametrize(
    "text",
    [
        "", "app = 1", "app = unknown()", "from other import app", "app = app", "x = [", "\0",
        "def handler(request, response): pass", "async def app(scope): pass",
        "class FastAPI: pass\napp = FastAPI()",
        "from fastapi import FastAPI\ndef inner():\n    app = FastAPI()\n",
        "from flask import Flask\ndef create_app(config):\n    return Flask('x')\n",
        "from flask import Flask\nasync def create_app():\n    return Flask('x')\n",
        "from flask import Flask\ndef helper():\n    return Flask('x')\n",
        "from main import app\napp = app()", "a = b\nb = a\napp = a",
    ],
)  # fmt: skip
def test_what_is_no_application_is_not_taken_for_one(text: str) -> None:
    assert found({"main.py": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "from flask import Flask\ndef create_app(config=None):\n    return Flask('x')\n",
        "from flask import Flask\ndef create_app(*, debug=False):\n    app = Flask('x')\n"
        "    return app",
        "def create_app():\n    from flask import Flask\n    app = Flask('x')\n    if app:\n"
        "        return app\n",
        "from flask import Flask\napp_ = 1\ndef make():\n    return Flask('x')\n"
        "def create_app():\n    return make()\n",
    ],
)
def test_a_function_that_makes_an_application_out_of_nothing_is_a_factory(text: str) -> None:
    (app,) = apps({"shop/__init__.py": text})
    assert (app.framework, app.target, app.factory) == ("Flask", "shop:create_app", True)
    assert str(app) == "Flask `create_app()` in shop/__init__.py"


def test_an_instance_that_a_factory_made_goes_before_the_factory() -> None:
    files = {
        "shop/__init__.py": "from flask import Flask\ndef create_app():\n    return Flask('x')\n",
        "wsgi.py": "from shop import create_app\napplication = create_app()\n",
    }
    assert [app.target for app in apps(files)] == ["wsgi:application", "shop:create_app"]


@pytest.mark.parametrize("parameters", ["name", "name, *, key=1", "*, name"])
def test_a_factory_that_must_be_told_something_is_known_by_what_it_is_called_for(
    parameters: str,
) -> None:
    files = {
        "shop/__init__.py": f"from flask import Flask\ndef create_app({parameters}):\n"
        "    app = Flask(name)\n    return app\n",
        "wsgi.py": "from shop import create_app\napplication = create_app('dev')\n",
    }
    assert found(files) == [(WSGI, "Flask", "wsgi:application")]


def test_a_function_that_is_given_an_application_makes_none() -> None:
    text = f"{FLASK}def wrap(app):\n    return app\nwrapped = wrap(app)\n"
    assert found({"app.py": text}) == [(WSGI, "Flask", "app:app")]


@pytest.mark.parametrize(
    ("file", "text"),
    [("shop/__init__.py", "from .web import app"), ("asgi.py", "from shop.web import app")],
)
def test_an_application_that_others_import_is_one_application(file: str, text: str) -> None:
    assert len(apps({"shop/web.py": FASTAPI, file: text})) == 1


def test_modules_that_import_each_other_are_no_end_of_the_search() -> None:
    files = {"main.py": "from app import app\n", "app.py": "from main import app\n"}
    assert found(files) == []
    assert found({**files, "shop.py": FASTAPI}) == [(ASGI, "FastAPI", "shop:app")]


@pytest.mark.parametrize(
    ("files", "target", "cwd", "path"),
    [
        (["main.py"], "main:app", "", ""),
        (["shop/main.py", "shop/__init__.py"], "shop.main:app", "", ""),
        (["shop/main.py"], "shop.main:app", "", ""),
        (["shop/__init__.py"], "shop:app", "", ""),
        (["src/shop/main.py", "src/shop/__init__.py"], "shop.main:app", "", "src"),
        (["src/main.py"], "main:app", "", "src"),
        (["src/main.py", "src/__init__.py"], "src.main:app", "", ""),
        (["backend/shop/main.py", "backend/pyproject.toml"], "shop.main:app", "backend", ""),
        (["backend/src/shop/main.py", "backend/setup.py"], "shop.main:app", "backend", "src"),
        (["site/shop/wsgi.py", "site/manage.py"], "shop.wsgi:app", "site", ""),
        (["my-shop/main.py"], "main:app", "my-shop", ""),
        (["a/my-shop/web/main.py"], "web.main:app", "a/my-shop", ""),
    ],
)
def test_a_module_is_named_from_the_directory_that_it_is_imported_from(
    files: list[str], target: str, cwd: str, path: str
) -> None:
    (app,) = apps({files[0]: FASTAPI, **dict.fromkeys(files[1:], "")})
    assert (app.target, app.cwd, app.path) == (target, cwd, path)


@pytest.mark.parametrize(
    ("imports", "target", "cwd"),
    [
        ("import routes", "main:app", "web"),
        ("from routes import x", "main:app", "web"),
        ("from web.routes import x", "web.main:app", ""),
        ("from . import routes", "web.main:app", ""),
        ("import os", "web.main:app", ""),
    ],
)
def test_a_script_that_imports_its_neighbours_is_run_in_their_directory(
    imports: str, target: str, cwd: str
) -> None:
    (app,) = apps({"web/main.py": f"{imports}\n{FASTAPI}", "web/routes.py": ""})
    assert (app.target, app.cwd) == (target, cwd)


def test_the_likeliest_of_several_comes_first_and_tests_and_examples_last() -> None:
    files = {
        "tests/app.py": FASTAPI, "examples/main.py": FASTAPI, "deep/er/main.py": FASTAPI,
        "main.py": FASTAPI, "other.py": FASTAPI.replace("app", "thing"),
        "shop.py": FASTAPI.replace("app", "api"),
    }  # fmt: skip
    assert [app.file for app in apps(files)] == [
        "main.py", "deep/er/main.py", "shop.py", "other.py", "examples/main.py", "tests/app.py",
    ]  # fmt: skip


def test_an_application_is_told_with_its_framework_its_name_and_its_file() -> None:
    assert str(apps({"main.py": FASTAPI})[0]) == "FastAPI `app` in main.py"
    assert str(apps({"main.py": RAW_ASGI})[0]) == "ASGI application `app` in main.py"
    assert isinstance(apps({"main.py": FLASK})[0], App)
