"""Find the word by which a program of a project is called, and what to do if it is missing."""

from __future__ import annotations

from sockmgr.init.facts import Project

_ENVIRONMENTS = (".venv", "venv", "env")


def path_to(project: Project, program: str, cwd: str) -> str:
    """Return the path, from `cwd`, of a program in an environment of the project, "" if none."""
    for folder in (cwd, ""):
        for environment in _ENVIRONMENTS:
            inner = f"{environment}/bin/{program}"
            if (f"{folder}/{inner}" if folder else inner) in project.programs:
                up = "../" * len(cwd.split("/")) if cwd and not folder else ""
                return f"{up}{inner}"
    return ""


def is_there(project: Project, program: str, cwd: str) -> bool:
    return bool(path_to(project, program, cwd)) or program in project.programs


def for_shell(project: Project, word: str) -> str:
    """Return the word by which a shell finds the program `word`: PATH need not have it."""
    outside = (one for one in project.programs if one[:1] == "/" and one.endswith(f"/{word}"))
    return next(outside, word)


def call(project: Project, program: str, cwd: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words that call the program, and what a person has to do before that works."""
    if path := path_to(project, program, cwd):
        return (path,), ()
    if program in project.programs:
        return (program,), ()
    if "uv.lock" in project.files and "uv" in project.programs:
        return ("uv", "run", program), ()
    return (program,), (f"{program} is not installed here: pip install {program}",)
