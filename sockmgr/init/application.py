"""Guess by which server a Python application of the project is served."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sockmgr.init import declared, servers
from sockmgr.init.facts import App, Guess, Interface, Project
from sockmgr.init.python import apps


def guess(project: Project, framework: str = "", files: Collection[str] = ()) -> Guess | None:
    """Return how the first application is served, None if there is none.

    Only those of `framework` count, and those in `files` come before the others.
    """
    found = [app for app in apps(project.files) if app.framework.startswith(framework)]
    found.sort(key=lambda app: app.file not in files)
    if not found:
        return None
    wanted = declared.dependencies(project.files)
    app, server, why = _choose(project, found, wanted)
    word, missing = project.call(server, app.cwd)
    others = tuple(
        f"{one}: {' '.join(servers.command(server, (server,), one))}"
        if one.interface is app.interface
        else str(one)
        for one in found
        if one is not app
    )
    names = sorted({"waitress", "cheroot", "gevent"} & wanted.keys())
    unfit = (f"{name} cannot be given a socket by its command line" for name in names)
    return Guess(
        command=servers.command(server, word, app),
        found=str(app),
        why=(f"{server}, {why}", *unfit),
        todo=missing,
        others=others[:4],
        cwd=app.cwd,
        env=(("PYTHONPATH", app.path),) if app.path else (),
    )


def _choose(project: Project, found: Sequence[App], wanted: dict[str, str]) -> tuple[App, str, str]:
    first = found[0]
    # Django's asgi.py and wsgi.py are one application: the available server decides between them.
    twins = [one for one in found if one.framework == first.framework and one.cwd == first.cwd]
    twins = twins if first.framework.startswith("Django") else [first]
    asked = {servers.DISTRIBUTIONS.get(name, name): file for name, file in wanted.items()}
    pairs = [(app, server) for app in twins for server in servers.PREFERRED[app.interface]]
    for app, server in pairs:
        if server in asked and project.has(server, app.cwd):
            return app, server, f"declared in {asked[server]}, and installed"
    for app, server in pairs:
        if server in asked:
            return app, server, f"declared in {asked[server]}"
    # No server is declared, so Django's WSGI comes before its ASGI.
    for app, server in sorted(pairs, key=lambda pair: pair[0].interface, reverse=True):
        if project.has(server, app.cwd):
            return app, server, "installed"
    app = next((one for one in twins if one.interface is Interface.WSGI), first)
    return app, servers.PREFERRED[app.interface][0], f"usual for {app.interface}"
