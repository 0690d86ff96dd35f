"""What a project most likely is, and the command that serves it. The reasons are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sockmgr.init import declared, node, procfile, servers
from sockmgr.init.facts import App, Guess, Interface, Project
from sockmgr.init.programs import call, is_there
from sockmgr.init.python import apps

LOOKED_FOR = (
    "a `web` line in a Procfile",
    "an ASGI or WSGI application in Python sources",
    "a Node server, or `start` in a package.json",
)


def guess(project: Project) -> tuple[Guess | None, tuple[str, ...]]:
    """Return the best guess, None if there is nothing, and what of LOOKED_FOR was not found."""
    found = (procfile.guess(project), _python(project), node.guess(project))
    missing = tuple(what for one, what in zip(found, LOOKED_FOR, strict=True) if one is None)
    # A Procfile says how the application is run where it runs now; the rest is inferred.
    guesses = [one for one in found if one]
    if not guesses:
        return None, missing
    first = guesses[0]
    others = tuple(one.found for one in guesses if one.found != first.found)
    return replace(first, others=(*first.others, *others)), missing


def _python(project: Project) -> Guess | None:
    found = apps(project.files)
    if not found:
        return None
    wanted = declared.dependencies(project.files)
    app, server, why = _choose(project, found, wanted)
    word, missing = call(project, server, app.cwd)
    others = tuple(
        f"{one}: {' '.join(servers.command(server, (server,), one))}"
        if one.interface is app.interface
        else str(one)
        for one in found
        if one is not app
    )
    return Guess(
        command=servers.command(server, word, app),
        found=str(app),
        why=(f"{server}, {why}", *_waitress(wanted)),
        todo=missing,
        others=others[:4],
        cwd=app.cwd,
        env=(("PYTHONPATH", app.path),) if app.path else (),
    )


def _choose(project: Project, found: Sequence[App], wanted: dict[str, str]) -> tuple[App, str, str]:
    """Return the application, the server for it, and why that one."""
    first = found[0]
    # Django's two files are one application: the server that is there decides between them.
    twins = [one for one in found if one.framework == first.framework and one.cwd == first.cwd]
    twins = twins if first.framework.startswith("Django") else [first]
    asked = {servers.DISTRIBUTIONS.get(name, name): file for name, file in wanted.items()}
    pairs = [(app, server) for app in twins for server in servers.PREFERRED[app.interface]]
    for app, server in pairs:
        if server in asked and is_there(project, server, app.cwd):
            return app, server, f"declared in {asked[server]}, and installed"
    for app, server in pairs:
        if server in asked:
            return app, server, f"declared in {asked[server]}"
    # Nobody asked for asynchronous Django, so it is not.
    for app, server in sorted(pairs, key=lambda pair: pair[0].interface, reverse=True):
        if is_there(project, server, app.cwd):
            return app, server, "installed"
    app = next((one for one in twins if one.interface is Interface.WSGI), first)
    return app, servers.PREFERRED[app.interface][0], f"usual for {app.interface}"


def _waitress(wanted: dict[str, str]) -> tuple[str, ...]:
    names = sorted({"waitress", "cheroot", "gevent"} & wanted.keys())
    return tuple(f"{name} cannot be given a socket by its command line" for name in names)
