"""`sockmgr init`: writes a first sockmgr.toml for a project, and says what it guessed and why.

Reads the files of the project for `sockmgr.init`, which does no I/O.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from sockmgr.cli import table, target
from sockmgr.config import servers
from sockmgr.errors import SockmgrError
from sockmgr.init.facts import Guess, Project
from sockmgr.init.python import STEMS
from sockmgr.kernel import regular
from sockmgr.launch import virtual_env

DEPTH = 5  # levels of directories that are searched below the project's own
LARGEST = 512 * 1024  # bytes; a larger file is not read
LARGEST_CONFIG = 128 * 1024  # bytes of a file that --from names
ALTOGETHER = 3 << 20  # bytes of all files: a parsed source takes a hundred times its size in memory
MOST = 2000  # at most so many files are read, and so many directories
PROGRAMS = (*servers.KNOWN, "npm", "uv", "poetry", "pipenv", "pdm", "bundle")
_NAMES = (
    "Procfile", "Procfile.dev", "package.json", "pyproject.toml", "Pipfile", "setup.py",
    "setup.cfg", "uv.lock",
)  # fmt: skip
_ENDINGS = (".py", ".js", ".mjs", ".cjs")
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "bower_components"})


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path),
    help="Carry over the config of another manager or server, instead of looking around.",
)
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the file instead of writing it.")
@click.option("--force", is_flag=True, help="Overwrite a sockmgr.toml that is there.")
def command(directory: Path, file: Path | None, to_stdout: bool, force: bool) -> None:
    """Write a sockmgr.toml for what is in DIRECTORY (default: this one).

    Looks for the `web` line of a Procfile, ASGI and WSGI applications and Node servers.
    It only reads: nothing is imported or run. It says what it guessed, and why.

    With --from it reads a supervisord.conf, circus.ini, gunicorn.conf.py, uwsgi.ini,
    ecosystem.config.js (PM2), config of NGINX Unit, Procfile or .service file, and says of each
    line that was not carried over why.

    Exit code 1: nothing was found; the file has a command for you to fill in.
    """
    from sockmgr.init import declared, draft
    from sockmgr.init.guess import guess

    path = directory / target.DEFAULT_CONFIG
    if not directory.is_dir():
        raise SockmgrError(f"{directory} is not a directory", means="no file was written")
    project = _project(directory)
    name = declared.name(project.files, project.directory)
    if file is not None:
        text, report = _carried_over(project, file, name)
    else:
        found, missing = guess(project)
        text, report = draft.draft(found, name), _report(found, missing)
    _put(path, text, to_stdout=to_stdout, force=force)
    for kind, said in report:
        _say(kind, draft.plain(said))
    if file is None and found is None:
        sys.exit(1)
    if not to_stdout:
        option = "" if str(path) == target.DEFAULT_CONFIG else f" -c {path}"
        _say("next", f"sockmgr check{option}, then sockmgr run{option}")


def _carried_over(project: Project, file: Path, name: str) -> tuple[str, Iterator[tuple[str, str]]]:
    """Return the config for what another manager's config says, and what is to be said of it.

    Raises SockmgrError if it is none.
    """
    from sockmgr.init.foreign import readers, services
    from sockmgr.init.foreign.form import Source

    place = project.relative(str(file.parent.resolve() / file.name))
    found = readers.read(Source(place, _foreign(file), project))
    text = services.text(found, project, file.name, name)

    def report() -> Iterator[tuple[str, str]]:
        for one in found.processes:
            yield "found", f"{one.name}: {' '.join(one.argv) or one.keys.get('app')}"
            yield from (("to do", what) for what in one.todo)
        yield from (("left", f"line {sentence}") for sentence in services.not_carried(found))

    return text, report()


def _foreign(file: Path) -> str:
    """Return the text of another manager's config; raise SockmgrError if it cannot be read."""
    try:
        return regular.read(file, LARGEST_CONFIG).decode()
    except OSError as error:
        what = f"cannot read {file}: {error.strerror}"
    except UnicodeDecodeError as error:
        what = f"{file}: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
    raise SockmgrError(what, means="nothing was written")


def _put(path: Path, text: str, *, to_stdout: bool, force: bool) -> None:
    if to_stdout:
        click.echo(text, nl=False)
        return
    try:
        regular.write(path, text, new=not force)
    except FileExistsError:
        raise SockmgrError(
            f"{path} is there already",
            means="it was left as it is",
            do="overwrite it with --force, or see what would be written with --stdout",
        ) from None
    except OSError as error:
        raise SockmgrError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"{path}: written")


def _report(found: Guess | None, missing: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if found:
        yield "found", found.found
        yield from (("because", why) for why in found.why)
        yield "command", " ".join(found.command)
        if found.takes_socket:
            yield "guessed", f"{found.workers} workers, on {found.listens_on.partition('://')[2]}"
        yield from (("to do", what) for what in found.todo)
        yield from (("also", other) for other in found.others)
        for one in found.beside:
            yield "also", f"`{one.name}`: {one.text} (a service in comments)"
    yield from (("not found", what) for what in missing)
    if not found:
        yield "to do", "write the command into the file: it says how"


def _say(kind: str, text: str) -> None:
    if table.is_lively(sys.stderr):
        known = {"found": "green", "to do": "yellow", "not found": "bright_black"}
        marked = click.style(f"{kind:>9}", fg=known.get(kind, "cyan"))
        click.echo(f"{marked}  {text}", err=True)
    else:
        click.echo(f"{kind}: {text}", err=True)


def _project(directory: Path) -> Project:
    files: dict[str, str] = {}
    left = ALTOGETHER
    programs, home = set[str](), ""
    found: list[Path] = []
    for folder, inner, names in itertools.islice(os.walk(directory), MOST):
        here = Path(folder).relative_to(directory)
        programs |= set(_programs(directory, here))
        home = home or virtual_env.beside(folder)
        inner[:] = sorted(name for name in inner if _is_source(Path(folder, name)))
        if len(here.parts) >= DEPTH:
            inner.clear()
        found += (here / name for name in sorted(names) if _is_relevant(name))
    programs |= set(_outside(home))
    # The files that most likely name the application are read first.
    found.sort(key=lambda path: (path.name not in _NAMES, path.stem not in STEMS, len(path.parts)))
    for path in found[:MOST]:
        text = _text(directory / path, min(LARGEST, left))
        if text is not None:
            left -= len(text)
            files[path.as_posix()] = text
    whole = directory.resolve()
    return Project(directory=whole.name, files=files, programs=frozenset(programs), root=str(whole))


def _outside(home: str) -> Iterator[str]:
    """Yield the servers that workers can run: in PATH, and beside us if they have no own `home`."""
    path = virtual_env.activated(os.environ, home)["PATH"] if home else None
    for program in PROGRAMS:
        beside = shutil.which(program, path=Path(sys.executable).parent)
        if shutil.which(program, path=path):
            yield program
        elif beside and not home:
            yield from (program, beside)


def _programs(directory: Path, here: Path) -> Iterator[str]:
    for environment in (".venv", "venv", "env"):
        for program in PROGRAMS:
            path = here / environment / "bin" / program
            if os.access(directory / path, os.X_OK):
                yield path.as_posix()
    local = here / "node_modules" / ".bin"
    if (directory / local).is_dir():
        yield from ((local / one.name).as_posix() for one in (directory / local).iterdir())


def _is_source(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _SKIPPED:
        return False
    return not (folder / "pyvenv.cfg").exists()


def _is_relevant(name: str) -> bool:
    return name in _NAMES or name.endswith(_ENDINGS) or name.startswith("requirements")


def _text(path: Path, limit: int) -> str | None:
    try:
        return regular.read(path, limit).decode("utf-8", errors="replace")
    except OSError:  # it may not be read, or is too large
        return None
