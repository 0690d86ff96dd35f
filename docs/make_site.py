"""Build the site from the pages that the forge shows: `make docs`, into build/docs.

Lays the pages out as Sphinx wants them: those at the top of the repository beside the others,
manual pages, a reference made from docstrings, and in the front page a table of contents, made
from its links. Links out of the site lead to copies. Each warning is an error: a link to nothing,
or to no heading, is one.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SOURCE = ROOT / "build" / "docs-source"
SITE = ROOT / "build" / "docs"
PAGES = [
    *DOCS.rglob("*.md"),
    ROOT / "examples" / "README.md",
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
]

REFERENCE = """\
# Python

What a program may import. All else may change with each version.

## sockmgr.worker

```{eval-rst}
.. automodule:: sockmgr.worker
   :members:
```

## sockmgr.client

```{eval-rst}
.. automodule:: sockmgr.client.client
   :members:
   :exclude-members: ask, is_same
.. automodule:: sockmgr.client.connection
   :members: NoManagerError, ForbiddenError, StillWaitingError, NotAskedError, LostError
.. automodule:: sockmgr.errors
   :members:
```

## sockmgr.api

```{eval-rst}
.. automodule:: sockmgr.api.types
   :members:
   :undoc-members:
.. automodule:: sockmgr.api.varlink
   :members: Logged, Happened, PastGeneration
   :undoc-members:
.. automodule:: sockmgr.api.figures
   :members:
   :undoc-members:
```
"""

_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```\n\n?", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"\[([^\]]+)\]\(([^)#]+)\)")
_GROUP = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
_SIGN = re.compile(r"`[^`]+`|([\\*_{}\[\]<>#|$~])")
_ESCAPES = {"\\e": "\\", "\\-": "-", "\\(ha": "^", "\\(ti": "~", "\\(dq": '"', "\\&": ""}


def lay_out() -> None:
    """Write all pages anew."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for page in PAGES:
        _write(_place(page), _moved(page))
    manual = runpy.run_path(str(DOCS / "make_man.py"))["pages"]()
    for name, roff in manual.items():
        _write(SOURCE / "man" / f"{name}.md", _markdown(name, roff))
    _write(SOURCE / "python.md", REFERENCE)
    index = SOURCE / "index.md"
    more = {"Manual": ["python", *(f"man/{name}" for name in sorted(manual))]}
    index.write_text(index.read_text() + _contents(index.read_text(), more))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _place(path: Path) -> Path:
    """Return where a file of the repository is laid out: the pages of docs at the top."""
    if path.is_relative_to(DOCS):
        return SOURCE / path.relative_to(DOCS)
    return SOURCE / "repository" / path.relative_to(ROOT)


def _moved(page: Path) -> str:
    """Return the text of a page with links that hold where it is laid out; copy what they name."""

    def moved(link: re.Match[str]) -> str:
        target = page.parent.joinpath(link[1]).resolve()
        place = _place(target)
        if target not in PAGES and target.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, place)
        return os.path.relpath(place, _place(page).parent)

    parts = _FENCED.split(_DIAGRAM.sub("", page.read_text()))
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def _contents(front: str, more: Mapping[str, Sequence[str]]) -> str:
    """Return the table of contents: a group for each heading, of the pages that it links to."""
    groups = {
        heading: [f"{' '.join(text.split())} <{page}>" for text, page in _ENTRY.findall(part)]
        for heading, part in _GROUP.findall(front)
    }
    contents = ""
    for caption, pages in {**groups, **more}.items():
        listed = "\n".join(pages)
        contents += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{listed}\n```\n"
    return contents


# --- Manual pages --------------------------------------------------------------------------------


def _markdown(name: str, roff: str) -> str:
    """Return a page of docs/make_man.py as Markdown: only the requests that it uses are known."""
    title, _, section = name.rpartition(".")
    _, _, text = _unescaped(roff).partition("\n")
    parts = re.split(r"^\.nf\n(.*?)^\.fi$", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = ["".join(_lines(iter(part.splitlines()))) for part in parts[::2]]
    parts[1::2] = [f"```\n{part}```\n" for part in parts[1::2]]
    return f"# {title}({section})\n{''.join(parts)}"


def _lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        match line.partition(" ")[::2]:
            case ".SH", heading:
                yield f"\n## {_plain(heading)}\n\n"
            case ".TP", _:
                yield f"\n{_plain(next(lines))}\n: "
            case ".PP", _:
                yield "\n"
            case _:
                yield f"{_plain(line)}\n"


def _plain(line: str) -> str:
    """Return a line in which only what is bold has a meaning for Markdown, and pages are links."""
    text = re.sub(r"^\.BR? ", "", line)
    text = _SIGN.sub(lambda sign: f"\\{sign[1]}" if sign[1] else sign[0], text)
    if seen := re.match(r"(sockmgr\S*) (\()(\d)\)", text):
        return f"[{seen[1]}({seen[3]})]({seen[1]}.{seen[3]}.md)"
    return f"**{text}**" if line.startswith(".B") else text


def _unescaped(roff: str) -> str:
    """Return a page without escapes, and without the quotes of what requests are given."""
    roff = re.sub(r"^\..*$", lambda line: line[0].replace('"', ""), roff, flags=re.MULTILINE)
    for escape, sign in _ESCAPES.items():
        roff = roff.replace(escape, sign)
    return roff


def main() -> int:
    """Build; 0 only if Sphinx has nothing to complain about."""
    lay_out()
    argv = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-E", "-j", "auto"]
    return subprocess.call([*argv, "-c", DOCS, SOURCE, SITE])


if __name__ == "__main__":
    sys.exit(main())
