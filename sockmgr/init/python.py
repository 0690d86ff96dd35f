"""Find the ASGI and WSGI applications in Python sources, by reading and never by importing."""

from __future__ import annotations

import ast
import warnings
from collections import ChainMap, deque
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace

from sockmgr.init.facts import App, Interface
from sockmgr.init.layout import home

# Callables that return an application.
_MADE_BY = {
    "fastapi.FastAPI": (Interface.ASGI, "FastAPI"),
    "fastapi.applications.FastAPI": (Interface.ASGI, "FastAPI"),
    "starlette.applications.Starlette": (Interface.ASGI, "Starlette"),
    "litestar.Litestar": (Interface.ASGI, "Litestar"),
    "litestar.app.Litestar": (Interface.ASGI, "Litestar"),
    "quart.Quart": (Interface.ASGI, "Quart"),
    "sanic.Sanic": (Interface.ASGI, "Sanic"),
    "blacksheep.Application": (Interface.ASGI, "BlackSheep"),
    "falcon.asgi.App": (Interface.ASGI, "Falcon"),
    "fasthtml.common.FastHTML": (Interface.ASGI, "FastHTML"),
    "fasthtml.common.fast_app": (Interface.ASGI, "FastHTML"),
    "connexion.AsyncApp": (Interface.ASGI, "Connexion"),
    "connexion.FlaskApp": (Interface.ASGI, "Connexion"),
    "socketio.ASGIApp": (Interface.ASGI, "Socket.IO"),
    "channels.routing.ProtocolTypeRouter": (Interface.ASGI, "Django Channels"),
    "django.core.asgi.get_asgi_application": (Interface.ASGI, "Django"),
    "asgiref.wsgi.WsgiToAsgi": (Interface.ASGI, ""),
    "a2wsgi.WSGIMiddleware": (Interface.ASGI, ""),
    "django.core.wsgi.get_wsgi_application": (Interface.WSGI, "Django"),
    "flask.Flask": (Interface.WSGI, "Flask"),
    "flask.app.Flask": (Interface.WSGI, "Flask"),
    "aiohttp.web.Application": (Interface.AIOHTTP, "aiohttp"),
    "apiflask.APIFlask": (Interface.WSGI, "APIFlask"),
    "bottle.Bottle": (Interface.WSGI, "Bottle"),
    "bottle.default_app": (Interface.WSGI, "Bottle"),
    "falcon.App": (Interface.WSGI, "Falcon"),
    "falcon.API": (Interface.WSGI, "Falcon"),
    "a2wsgi.ASGIMiddleware": (Interface.WSGI, ""),
}
# Classes whose instances have an application as their attribute `server`, and are none themselves.
_HAS_SERVER = ("dash.Dash", "dash.dash.Dash", "jupyter_dash.JupyterDash")
# Limits that no real project reaches, so that a file made for it cannot keep a search busy.
MOST_STEPS, DEEPEST = 100_000, 80
_STEPS_OF_A_FUNCTION = 20
_MOST_MEANINGS = 20  # of one name in one module; the last ones are kept
_LONGEST_NAME = 200
_NAMES = ("app", "application", "asgi_app", "wsgi_app", "api", "asgi", "wsgi", "server")
_FACTORIES = ("create_app", "make_app", "build_app", "get_app", "app_factory", "create_application")
STEMS = ("asgi", "wsgi", "main", "app", "__init__", "server", "api", "application", "run", "index")
_ASIDE = frozenset({
    "tests", "test", "testing", "examples", "example", "docs", "doc", "docs_src", "scripts",
    "benchmarks", "bench", "tutorials", "migrations", "contrib",
})  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Imported:
    """A name that is imported: `name` of `module`, relative by `level` dots."""

    module: str
    name: str
    level: int


_Meaning = ast.expr | _Function | ast.ClassDef | _Imported


@dataclass(frozen=True, slots=True)
class _Kind:
    """The application that a name stands for; `origin` is the file and name where it is made."""

    interface: Interface
    framework: str
    origin: tuple[str, str]
    factory: bool = False
    needs: bool = False  # a factory that cannot be called without arguments


@dataclass(slots=True)
class _Module:
    file: str
    tree: ast.Module
    names: MutableMapping[str, deque[_Meaning]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """The names inside a function: its `local` variables and its parameters.

    A local name that was `followed` already means the name of the module from then on.
    """

    local: Mapping[str, ast.expr] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    followed: tuple[str, ...] = ()


def apps(files: Mapping[str, str]) -> list[App]:
    """Return the applications in the Python sources among `files`, the likeliest first."""
    modules = {file: module for file in sorted(files) if (module := _parse(file, files[file]))}
    search = _Search(modules)
    found = [
        (_rank(module.file, name, kind), module, name, kind)
        for module in modules.values()
        for name, kind in search.candidates(module)
    ]
    best: dict[tuple[str, str], App] = {}  # by origin: several modules may import one application
    for _, module, name, kind in sorted(found, key=lambda one: one[0]):
        if kind.origin not in best:
            best[kind.origin] = _app(module, name, kind, files)
    return list(best.values())


def _app(module: _Module, name: str, kind: _Kind, files: Mapping[str, str]) -> App:
    cwd, path, name_of_module = home(module.file, module.tree, files)
    return App(
        interface=kind.interface, framework=kind.framework, file=module.file,
        module=name_of_module, name=name, factory=kind.factory, cwd=cwd, path=path,
    )  # fmt: skip


def _rank(file: str, name: str, kind: _Kind) -> tuple[object, ...]:
    *folders, last = file.split("/")
    stem = last.removesuffix(".py")
    return (
        not _ASIDE.isdisjoint(folders) or last.startswith("test_") or last == "conftest.py",
        kind.factory,
        _NAMES.index(name) // 2 if name in _NAMES else len(_NAMES),
        STEMS.index(stem) if stem in STEMS else len(STEMS),
        len(folders),
        file,
        name,
    )


# --- Sources -------------------------------------------------------------------------------------


def _parse(file: str, text: str) -> _Module | None:
    if not file.endswith(".py"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the project's code, such as invalid escapes
            tree = ast.parse(text)
        module = _Module(file, tree)
        for node in _statements(tree.body):
            for name, meaning in _meanings(node):
                module.names.setdefault(name, deque(maxlen=_MOST_MEANINGS)).append(meaning)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # for another version of Python, no source at all, or nested too deep
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        match node:
            case ast.If() | ast.For() | ast.While():
                yield from _statements([*node.body, *node.orelse])
            case ast.With():
                yield from _statements(node.body)
            case ast.Try():
                handlers = [one for handler in node.handlers for one in handler.body]
                yield from _statements([*node.body, *handlers, *node.orelse, *node.finalbody])


def _meanings(node: ast.stmt) -> Iterator[tuple[str, _Meaning]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                # fast_app() returns several things, the application first.
                first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
                if isinstance(first, ast.Name):
                    yield first.id, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name, node
        case ast.Import(names=names):
            for alias in names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, _Imported(whole, "", 0)
        case ast.ImportFrom(module=origin, names=names, level=level):
            for alias in names:
                yield alias.asname or alias.name, _Imported(origin or "", alias.name, level)


# --- What a name stands for ----------------------------------------------------------------------


class _Search:
    """Follows names through the modules of one project."""

    def __init__(self, modules: Mapping[str, _Module]) -> None:
        self._modules = modules
        self._by_name: dict[str, list[str]] = {}
        for file in modules:
            self._by_name.setdefault(file.rpartition("/")[2], []).append(file)
        self._asked: set[tuple[str, str, int]] = set()
        self._steps = self._depth = 0

    def candidates(self, module: _Module) -> Iterator[tuple[str, _Kind]]:
        """Yield the applications in `module`, by the names that a server could be given."""
        stem = module.file.rpartition("/")[2].removesuffix(".py")
        for name, meanings in module.names.items():
            if isinstance(meanings[-1], _Imported) and not (name in _NAMES and stem in STEMS):
                continue
            functions = [one for one in meanings if isinstance(one, _Function)]
            if name not in _FACTORIES and len(functions) == len(meanings):
                kind = _callable((module.file, name), functions[-1])
            else:
                kind = self._name(module, name)
            if kind and not kind.needs and (not kind.factory or name in _FACTORIES):
                yield name, kind

    def _name(self, module: _Module, name: str) -> _Kind | None:
        """Return the application of the last meaning of `name` that stands for one."""
        meanings = module.names.get(name, deque())
        for index in range(len(meanings) - 1, -1, -1):
            asked = (module.file, name, index)
            # app = Wrapper(app), or modules that import each other
            if asked in self._asked or self._is_enough():
                continue
            self._asked.add(asked)
            self._depth += 1
            kind = self._meaning(module, name, meanings[index])
            self._depth -= 1
            self._asked.discard(asked)
            if kind:
                return kind
        return None

    def _is_enough(self) -> bool:
        """Count a step; return whether there were too many, or too many inside each other."""
        self._steps += 1
        return self._steps > MOST_STEPS or self._depth > DEEPEST

    def _meaning(self, module: _Module, name: str, meaning: _Meaning) -> _Kind | None:
        match meaning:
            case _Imported():
                found = self._find(module, meaning)
                return self._name(found, meaning.name) if found else None
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return _callable((module.file, meaning.name), meaning) or self._factory(
                    module, meaning
                )
            case ast.ClassDef():
                return None
        return self._value(module, name, meaning)

    def _value(
        self, module: _Module, name: str, value: ast.expr, scope: _Scope | None = None
    ) -> _Kind | None:
        """Return the application that an expression stands for; `scope` is that of its function."""
        if self._is_enough():
            return None
        self._depth += 1
        kind = self._expression(module, name, value, scope or _Scope())
        self._depth -= 1
        return kind

    def _expression(
        self, module: _Module, name: str, value: ast.expr, scope: _Scope
    ) -> _Kind | None:
        match value:
            case ast.Name(id=other) if other in scope.local and other not in scope.followed:
                inner = replace(scope, followed=(*scope.followed, other))
                return self._value(module, name, scope.local[other], inner)
            case ast.Name(id=other):
                return None if other in scope.parameters else self._name(module, other)
            case ast.Attribute(value=ast.Name(id=other), attr="server"):
                meaning = scope.local.get(other) or next(
                    reversed(module.names.get(other, [])), None
                )
                made = isinstance(meaning, ast.Call) and self._qualified(module, meaning.func)
                is_dash = made in _HAS_SERVER
                return _Kind(Interface.WSGI, "Dash", (module.file, name)) if is_dash else None
            case ast.Call(func=func) if self._qualified(module, func) in _HAS_SERVER:
                return None
            case ast.Call(func=func, args=args, keywords=keywords):
                wrapped = (  # a wrapper around an application is an application
                    self._value(module, name, one, scope)
                    for one in (*args, *(keyword.value for keyword in keywords))
                    if isinstance(one, ast.Name | ast.Call)
                )
                return self._called(module, name, func) or next(filter(None, wrapped), None)
        return None

    def _called(self, module: _Module, name: str, func: ast.expr) -> _Kind | None:
        qualified = self._qualified(module, func)
        if qualified in _MADE_BY:
            return _Kind(*_MADE_BY[qualified], (module.file, name))
        if not isinstance(func, ast.Name):
            return None
        for meaning in reversed(module.names.get(func.id, [])):
            if isinstance(meaning, ast.ClassDef):
                return self._instance(module, name, meaning)
        made = self._name(module, func.id)
        if made is None or not made.factory:
            return None
        return _Kind(made.interface, made.framework, (module.file, name))

    def _instance(self, module: _Module, name: str, kind: ast.ClassDef) -> _Kind | None:
        """Return the kind of the instances of a class, by its base or by its __call__()."""
        for base in kind.bases:
            if (qualified := self._qualified(module, base)) in _MADE_BY:
                return _Kind(*_MADE_BY[qualified], (module.file, name))
        for node in kind.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "__call__":
                return _callable((module.file, name), node, skip=1)
        return None

    def _factory(self, module: _Module, function: _Function) -> _Kind | None:
        if isinstance(function, ast.AsyncFunctionDef):
            return None
        arguments = function.args
        given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        needed = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
        self._steps += _STEPS_OF_A_FUNCTION
        body = list(_statements(function.body))
        meanings = [each for node in body for each in _meanings(node)]
        local = {name: each for name, each in meanings if isinstance(each, ast.expr)}
        imported: dict[str, deque[_Meaning]] = {
            name: deque([each]) for name, each in meanings if isinstance(each, _Imported)
        }
        inner = _Module(module.file, module.tree, ChainMap(imported, module.names))
        scope = _Scope(local=local, parameters=frozenset(one.arg for one in given))
        for node in body:
            if isinstance(node, ast.Return) and node.value:
                kind = self._value(inner, function.name, node.value, scope)
                if kind and not kind.factory:
                    return replace(
                        kind,
                        origin=(module.file, function.name),
                        factory=True,
                        needs=bool(needed or None in arguments.kw_defaults),
                    )
        return None

    def _qualified(self, module: _Module, func: ast.expr) -> str:
        """Return the full name of an imported callable, "" if it is not imported."""
        attributes = ""
        while isinstance(func, ast.Attribute) and len(attributes) <= _LONGEST_NAME:
            attributes = f".{func.attr}{attributes}"
            func = func.value
        if not isinstance(func, ast.Name):
            return ""
        for meaning in reversed(module.names.get(func.id, [])):
            if isinstance(meaning, _Imported) and not meaning.level:
                return f"{meaning.module}.{meaning.name}".rstrip(".") + attributes
        for meaning in module.names.get("*", []):
            if isinstance(meaning, _Imported) and f"{meaning.module}.{func.id}" in _MADE_BY:
                return f"{meaning.module}.{func.id}{attributes}"
        return ""

    def _find(self, module: _Module, imported: _Imported) -> _Module | None:
        """Return the module of the project from which a name is imported, None if it has none."""
        parts = imported.module.split(".") if imported.module else []
        if imported.level:
            folders = module.file.split("/")[:-1]
            parts = [*folders[: len(folders) - imported.level + 1], *parts]
        path = "/".join(parts)
        if not path:
            return self._modules.get("__init__.py")
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in self._modules:
                return self._modules[file]
            name = file.rpartition("/")[2]
            for known in () if imported.level else self._by_name.get(name, ()):
                if known.endswith(f"/{file}"):
                    return self._modules[known]
        return None


def _callable(origin: tuple[str, str], function: _Function, *, skip: int = 0) -> _Kind | None:
    """Return the kind of a function that is an application itself; `skip` is 1 for a method."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)][skip:]
    if isinstance(function, ast.AsyncFunctionDef) and names == ["scope", "receive", "send"]:
        return _Kind(Interface.ASGI, "", origin)
    if isinstance(function, ast.FunctionDef) and names[1:] == ["start_response"]:
        return _Kind(Interface.WSGI, "", origin)
    return None
