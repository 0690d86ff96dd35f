"""The ASGI and WSGI applications in Python sources, found by reading and never by importing."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sockmgr.core.project.facts import App, Interface
from sockmgr.core.project.layout import home

# What returns an application when it is called.
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
    "apiflask.APIFlask": (Interface.WSGI, "APIFlask"),
    "bottle.Bottle": (Interface.WSGI, "Bottle"),
    "bottle.default_app": (Interface.WSGI, "Bottle"),
    "falcon.App": (Interface.WSGI, "Falcon"),
    "falcon.API": (Interface.WSGI, "Falcon"),
    "a2wsgi.ASGIMiddleware": (Interface.WSGI, ""),
}
_NAMES = ("app", "application", "asgi_app", "wsgi_app", "api", "asgi", "wsgi", "server")
_FACTORIES = ("create_app", "make_app", "build_app", "get_app", "app_factory", "create_application")
_STEMS = ("asgi", "wsgi", "main", "app", "__init__", "server", "api", "application", "run", "index")
_ASIDE = frozenset({
    "tests", "test", "testing", "examples", "example", "docs", "doc", "docs_src", "scripts",
    "benchmarks", "bench", "tutorials", "migrations", "contrib",
})  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Imported:
    """A name that another module has: `name` of `module`, relative by `level` dots."""

    module: str
    name: str
    level: int


_Meaning = ast.expr | _Function | ast.ClassDef | _Imported


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a name stands for, and where that was made."""

    interface: Interface
    framework: str
    origin: tuple[str, str]
    factory: bool = False


@dataclass(slots=True)
class _Module:
    file: str
    tree: ast.Module
    names: dict[str, list[_Meaning]] = field(default_factory=dict)


def apps(files: Mapping[str, str]) -> list[App]:
    """Return the applications in the Python sources among `files`, the likeliest first."""
    modules = {file: module for file in sorted(files) if (module := _parse(file, files[file]))}
    search = _Search(modules)
    found = [
        (_rank(module.file, name, kind), module, name, kind)
        for module in modules.values()
        for name, kind in search.candidates(module)
    ]
    best: dict[tuple[str, str], App] = {}  # one that other modules import is one application
    for _, module, name, kind in sorted(found, key=lambda one: one[0]):
        if kind.origin not in best:
            best[kind.origin] = _app(module, name, kind, files)
    return list(best.values())


def _app(module: _Module, name: str, kind: _Kind, files: Mapping[str, str]) -> App:
    at = home(module.file, module.tree, files)
    return App(
        interface=kind.interface, framework=kind.framework, file=module.file, module=at.module,
        name=name, factory=kind.factory, cwd=at.cwd, path=at.path,
    )  # fmt: skip


def _rank(file: str, name: str, kind: _Kind) -> tuple[object, ...]:
    *folders, last = file.split("/")
    stem = last.removesuffix(".py")
    return (
        not _ASIDE.isdisjoint(folders) or last.startswith("test_") or last == "conftest.py",
        kind.factory,
        _NAMES.index(name) // 2 if name in _NAMES else len(_NAMES),
        _STEMS.index(stem) if stem in _STEMS else len(_STEMS),
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
            warnings.simplefilter("ignore")  # of somebody else's code, such as invalid escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # not of this Python, or no source at all
        return None
    module = _Module(file, tree)
    for node in _statements(tree.body):
        for name, meaning in _meanings(node):
            module.names.setdefault(name, []).append(meaning)
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what a body runs, whatever branch it takes."""
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
        self._asked: set[tuple[str, str, int]] = set()

    def candidates(self, module: _Module) -> Iterator[tuple[str, _Kind]]:
        """Yield the applications that a server could be told of by a name in `module`."""
        stem = module.file.rpartition("/")[2].removesuffix(".py")
        for name, meanings in module.names.items():
            if isinstance(meanings[-1], _Imported) and not (name in _NAMES and stem in _STEMS):
                continue
            kind = self._name(module, name)
            if kind and (not kind.factory or name in _FACTORIES):
                yield name, kind

    def _name(self, module: _Module, name: str) -> _Kind | None:
        """Return what the last meaning of `name` is that can be told."""
        meanings = module.names.get(name, [])
        for index in range(len(meanings) - 1, -1, -1):
            asked = (module.file, name, index)
            if asked in self._asked:  # app = Wrapper(app), or modules that import each other
                continue
            self._asked.add(asked)
            kind = self._meaning(module, name, meanings[index])
            self._asked.discard(asked)
            if kind:
                return kind
        return None

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
        self,
        module: _Module,
        name: str,
        value: ast.expr,
        local: Mapping[str, ast.expr] | None = None,
    ) -> _Kind | None:
        """Return what an expression stands for; `local` are the variables of its function."""
        match value:
            case ast.Name(id=other) if local and other in local:
                rest = {key: one for key, one in local.items() if key != other}
                return self._value(module, name, local[other], rest)
            case ast.Name(id=other):
                return self._name(module, other)
            case ast.Call(func=func, args=args, keywords=keywords):
                return self._called(module, name, func) or next(
                    filter(
                        None,
                        (  # a wrapper around an application is one
                            self._value(module, name, one, local)
                            for one in (*args, *(keyword.value for keyword in keywords))
                            if isinstance(one, ast.Name | ast.Call)
                        ),
                    ),
                    None,
                )
        return None

    def _called(self, module: _Module, name: str, func: ast.expr) -> _Kind | None:
        qualified = self._qualified(module, func)
        if qualified in _MADE_BY:
            interface, framework = _MADE_BY[qualified]
            origin = (module.file, name)
            return _Kind(interface=interface, framework=framework, origin=origin)
        if not isinstance(func, ast.Name):
            return None
        for meaning in reversed(module.names.get(func.id, [])):
            if isinstance(meaning, ast.ClassDef):
                return self._instance(module, name, meaning)
        made = self._name(module, func.id)
        if made is None or not made.factory:
            return None
        origin = (module.file, name)
        return _Kind(interface=made.interface, framework=made.framework, origin=origin)

    def _instance(self, module: _Module, name: str, kind: ast.ClassDef) -> _Kind | None:
        """Return what an instance of a class is, by its base or by how it is called."""
        for base in kind.bases:
            if (qualified := self._qualified(module, base)) in _MADE_BY:
                interface, framework = _MADE_BY[qualified]
                origin = (module.file, name)
                return _Kind(interface=interface, framework=framework, origin=origin)
        for node in kind.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "__call__":
                return _callable((module.file, name), node, skip=1)
        return None

    def _factory(self, module: _Module, function: _Function) -> _Kind | None:
        """Return the kind of a function that makes an application out of nothing."""
        arguments = function.args
        needed = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
        if isinstance(function, ast.AsyncFunctionDef) or needed or None in arguments.kw_defaults:
            return None
        body = list(_statements(function.body))
        local = {
            name: meaning
            for node in body
            for name, meaning in _meanings(node)
            if isinstance(meaning, ast.expr)
        }
        imports = _Module(module.file, module.tree, dict(module.names))
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.names |= {name: [meaning] for name, meaning in _meanings(node)}
        for node in body:
            if isinstance(node, ast.Return) and node.value:
                kind = self._value(imports, function.name, node.value, local)
                if kind and not kind.factory:
                    origin = (module.file, function.name)
                    return _Kind(
                        interface=kind.interface, framework=kind.framework, origin=origin,
                        factory=True,
                    )  # fmt: skip
        return None

    def _qualified(self, module: _Module, func: ast.expr) -> str:
        """Return the full name of what is called, "" if it is not imported."""
        match func:
            case ast.Attribute(value=value, attr=attr):
                before = self._qualified(module, value)
                return f"{before}.{attr}" if before else ""
            case ast.Name(id=name):
                for meaning in reversed(module.names.get(name, [])):
                    if isinstance(meaning, _Imported) and not meaning.level:
                        return f"{meaning.module}.{meaning.name}".rstrip(".")
                for meaning in module.names.get("*", []):
                    if isinstance(meaning, _Imported) and f"{meaning.module}.{name}" in _MADE_BY:
                        return f"{meaning.module}.{name}"
        return ""

    def _find(self, module: _Module, imported: _Imported) -> _Module | None:
        """Return the module of the project that something is imported from."""
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
            for known in () if imported.level else self._modules:
                if known.endswith(f"/{file}"):
                    return self._modules[known]
        return None


def _callable(origin: tuple[str, str], function: _Function, *, skip: int = 0) -> _Kind | None:
    """Return the kind of a function that is an application itself; `skip` is 1 for a method."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)][skip:]
    if isinstance(function, ast.AsyncFunctionDef) and names == ["scope", "receive", "send"]:
        return _Kind(interface=Interface.ASGI, framework="", origin=origin)
    if isinstance(function, ast.FunctionDef) and names[1:] == ["start_response"]:
        return _Kind(interface=Interface.WSGI, framework="", origin=origin)
    return None
