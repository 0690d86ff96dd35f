"""Which files count for `sockmgr dev`, and which directories are searched for them. Pure.

All paths are absolute texts without `.`, `..` or a slash at the end.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable

_LANGUAGES = (  # suffixes of the sources of servers, and of what servers load beside them
    "py pyx so rb ru php js mjs cjs ts mts cts jsx tsx vue svelte go rs java kt lua pl pm ex exs "
    "sh sql graphql gql proto"
)
_TEMPLATES = (
    "html htm xhtml xml jinja jinja2 j2 mako mustache hbs ejs pug erb haml twig tmpl tpl gohtml "
    "css scss sass less po mo"
)
_SETTINGS = "toml yaml yml ini cfg conf properties env"
SUFFIXES = frozenset(f"{_LANGUAGES} {_TEMPLATES} {_SETTINGS}".split())
_DIRECTORIES_LEFT_OUT = (
    ".*", "__pycache__", "__pypackages__", "node_modules", "bower_components", "site-packages",
    "venv", "virtualenv", "build", "_build", "dist", "target", "htmlcov", "*.egg-info",
)  # fmt: skip
# A directory with one of these files is a virtual environment or a cache (bford.info/cachedir).
MARKS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG"})
_LIBRARY = re.compile(r"[^/]|/.*(?:-packages|/python3\.\d+|/node_modules|/bin)/")
_LEFT_OUT = re.compile("|".join(map(fnmatch.translate, _DIRECTORIES_LEFT_OUT)))


class Rules:
    """The rules of a config and our own; the files below `roots` count by them, `files` always.

    `ignore` and `include` are patterns. A pattern without a slash is matched with each name in a
    path, one with a slash with the path relative to `base`.
    """

    def __init__(
        self,
        base: str,
        roots: Iterable[str],
        *,
        ignore: Collection[str] = (),
        include: Collection[str] = (),
        files: Iterable[str] = (),
    ) -> None:
        self.roots, self.files = frozenset(roots), frozenset(files)
        self._base, self._ignore, self._include = base, ignore, include
        self._ignored, self._included = _matcher(ignore), _matcher(include)
        self._entered: dict[str, bool] = dict.fromkeys(self.roots, True)

    def also(self, files: Iterable[str]) -> Rules:
        """Return rules by which these files count as well."""
        return Rules(
            self._base,
            self.roots,
            ignore=self._ignore,
            include=self._include,
            files=self.files.union(files),
        )

    def covers(self, other: Rules) -> bool:
        """Return whether these rules are `other`, or `other` with more `files`."""
        same = (self.roots, self._base, self._ignore, self._include) == (
            other.roots, other._base, other._ignore, other._include,
        )  # fmt: skip
        return same and self.files >= other.files

    def shown(self, path: str) -> str:
        """Return a path relative to the base, if it is below the base."""
        return path.removeprefix(f"{self._base}/")

    def counts(self, path: str) -> bool:
        """Return whether a change of this file is a change of the code."""
        if path in self.files:
            return True
        directory, _, name = path.rpartition("/")
        if not self.enters(directory) or self._ignored(self.shown(path)):
            return False
        return _is_source(name) or self._included(self.shown(path))

    def enters(self, directory: str) -> bool:
        """Return whether files in this directory may count."""
        entered = self._entered.get(directory)
        if entered is None:
            above, _, name = directory.rpartition("/")
            entered = bool(name) and self.enters(above) and not self._leaves_out(directory, name)
            if len(self._entered) > 100_000:  # names that come and go must not fill the memory
                self._entered = dict.fromkeys(self.roots, True)
            self._entered[directory] = entered
        return entered

    def holds(self, path: str) -> bool:
        """Return whether this file is the user's: in the project, or at least in no library."""
        if path.startswith("/") and self.enters(path.rpartition("/")[0]):
            return True
        return _LIBRARY.match(path) is None

    def _leaves_out(self, directory: str, name: str) -> bool:
        return bool(_LEFT_OUT.fullmatch(name)) or self._ignored(self.shown(directory))


def _is_source(name: str) -> bool:
    if name.startswith("."):  # editors keep hidden copies beside the file; .env is meant
        return name == ".env" or name.startswith(".env.")
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and suffix in SUFFIXES


def _matcher(patterns: Collection[str]) -> Callable[[str], bool]:
    """Return a function: whether a path, or a directory above it, matches one of `patterns`."""
    cleaned = [pattern.removeprefix("./").rstrip("/") for pattern in patterns]
    names = _any_of(pattern for pattern in cleaned if "/" not in pattern)
    paths = _any_of(pattern for pattern in cleaned if "/" in pattern)

    def matches(path: str) -> bool:
        parts = path.split("/")
        return any(map(names, parts)) or any(
            paths("/".join(parts[:length])) for length in range(1, len(parts) + 1)
        )

    return matches if patterns else lambda path: False  # noqa: ARG005


def _any_of(patterns: Iterable[str]) -> Callable[[str], object]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)").match
