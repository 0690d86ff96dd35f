"""The page that a browser gets while no code serves, and the text that curl gets. Reads no file.

Everything shown is escaped and bounded: the page may hold whatever a broken program printed. The
page asks every half second, by HEAD for its own address, who answers now, and loads itself anew
when that is not the same page.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sockmgr.dev.failure import Failure, Frame

HEADER = "X-Sockmgr-Error"
FRAMES_SHOWN = 30
OUTPUT_SHOWN = 100
LINE_MAX = 400
BYTES_MAX = 256 << 10

Context = Callable[[Frame], Sequence[tuple[int, str]]]  # numbered lines around a frame's


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the page is about: the service, which files are the user's, how paths are shown."""

    service: str
    failure: Failure
    is_ours: Callable[[str], bool]
    shown: Callable[[str], str]
    context: Context


def render(subject: Subject) -> bytes:
    """Return the page in all its forms, for the stand-in."""
    page, text = _html(subject), _text(subject)
    if len(page) > BYTES_MAX:  # lines of wide characters
        page = f"<!doctype html><pre>{html.escape(text[: BYTES_MAX // 8])}</pre>"
    number = hashlib.blake2b(page.encode(errors="replace"), digest_size=8).hexdigest()
    told = {"id": number, "header": HEADER, "html": page.replace(_NUMBER, number), "text": text}
    return json.dumps(told).encode()


def _html(subject: Subject) -> str:
    failure, service = subject.failure, html.escape(subject.service)
    ours, others = failure.split(subject.is_ours)
    parts = [f"<h1>{service} is broken</h1>"]
    parts += [f"<p class=error>{_cut(failure.error)}</p>"] if failure.error else []
    parts += [f"<p>The worker {_cut(failure.what)}. This page goes when the code is mended.</p>"]
    parts += [_frame(frame, subject) for frame in ours[:FRAMES_SHOWN]]
    if others:
        lines = "\n".join(_place(frame, subject) for frame in others[-FRAMES_SHOWN:])
        opened = "" if ours else " open"
        parts.append(
            f"<details{opened}><summary>in libraries</summary><pre>{lines}</pre></details>"
        )
    output = "\n".join(_cut(line) for line in failure.output[-OUTPUT_SHOWN:])
    if output:
        opened = "" if failure.frames else " open"
        parts.append(f"<details{opened}><summary>output</summary><pre>{output}</pre></details>")
    return _PAGE.format(title=service, style=_STYLE, body="\n".join(parts), script=_SCRIPT)


def _frame(frame: Frame, subject: Subject) -> str:
    lines = "".join(
        f"<span class={'here' if number == frame.line else 'near'}>"
        f"{number:>5}  {_cut(text)}\n</span>"
        for number, text in subject.context(frame)
    )
    source = f"<pre>{lines}</pre>" if lines else ""
    return f"<section><h2>{_place(frame, subject)}</h2>{source}</section>"


def _place(frame: Frame, subject: Subject) -> str:
    function = f" in {frame.function}" if frame.function else ""
    return _cut(f"{subject.shown(frame.file)}:{frame.line}{function}")


def _cut(text: str) -> str:
    return html.escape(_plain(text))


def _plain(text: str) -> str:
    """Return one line without what would control a terminal, cut short."""
    text = text[:LINE_MAX].replace("\t", "    ")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _text(subject: Subject) -> str:
    failure = subject.failure
    ours, _ = failure.split(subject.is_ours)
    lines = [f"{subject.service} is broken: the worker {failure.what}"]
    lines += [failure.error] if failure.error else []
    for frame in ours[:FRAMES_SHOWN]:
        lines.append(f"  {subject.shown(frame.file)}:{frame.line} {frame.function}".rstrip())
        lines += [f"    {line}" for number, line in subject.context(frame) if number == frame.line]
    if not ours:
        lines += [f"  {line}" for line in failure.output[-OUTPUT_SHOWN:]]
    return "".join(f"{_plain(line)}\n" for line in lines)


_NUMBER = "THE-NUMBER-OF-THIS-PAGE"
_PAGE = """\
<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{title} is broken</title>
<style>{style}</style>
<main>
{body}
</main>
<script>{script}</script>
</html>
"""
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0; border-top: .4rem solid #c33 }
main { max-width: 60rem; margin: 0 auto; padding: 1rem }
h1 { margin: 1rem 0 0; font-size: 1.6rem }
h2 { margin: 0; padding: .4rem .8rem; font: 600 .9rem monospace }
.error { margin: .5rem 0; font: 600 1.1rem monospace; color: #c33; overflow-wrap: anywhere }
section, details { margin: 1rem 0; border: 1px solid #8886; border-radius: .4rem }
summary { padding: .4rem .8rem; cursor: pointer }
pre { margin: 0; padding: .4rem 0; overflow-x: auto; font: .85rem/1.5 monospace }
details pre { padding: .4rem .8rem }
pre span { display: block; padding: 0 .8rem }
.near { opacity: .65 }
.here { background: #c332 }
"""
_SCRIPT = """
"use strict";
const shown = "THE-NUMBER-OF-THIS-PAGE";
async function look() {
  try {
    const answer = await fetch(location.href, {method: "HEAD", cache: "no-store"});
    if (answer.headers.get("X-Sockmgr-Error") !== shown) {
      // A form that was posted is not to be posted again.
      location.hash ? location.reload() : location.replace(location.href);
      return;
    }
  } catch {}
  setTimeout(look, 500);
}
setTimeout(look, 500);
"""
