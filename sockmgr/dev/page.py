"""Renders the error page for a browser, and the text for curl, while no code serves. Pure.

Everything shown is escaped and bounded, because the page may quote whatever a broken program
printed. The page sends a HEAD for its own address every half second, and reloads itself when the
answer does not come from this same page.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sockmgr.dev.failure import Failure, Frame, printable
from sockmgr.dev.rules import Rules

HEADER = "X-Sockmgr-Error"
FRAMES_SHOWN = 30
OUTPUT_SHOWN = 100
LINE_MAX = 400  # characters
BYTES_MAX = 256 << 10

Context = Callable[[Frame], Sequence[tuple[int, str]]]  # the numbered lines around that of a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a page is about: the failure of a service.

    `rules` tell the user's files, and `context` returns the lines of source around that of a frame.
    """

    service: str
    failure: Failure
    rules: Rules
    context: Context


def render(subject: Subject) -> bytes:
    """Return the page and the text as JSON, which the stand-in reads."""
    page, text = _html(subject), _text(subject)
    if len(page) > BYTES_MAX:  # escaping can make a character up to six times as long
        page = f"<!doctype html><pre>{html.escape(text[: BYTES_MAX // 8])}</pre>"
    number = hashlib.blake2b(page.encode(errors="replace"), digest_size=8).hexdigest()
    forms = {"id": number, "header": HEADER, "html": page.replace(_NUMBER, number), "text": text}
    return json.dumps(forms).encode()


def _html(subject: Subject) -> str:
    failure, service = subject.failure, html.escape(subject.service)
    ours, others = failure.split(subject.rules)
    ended = _cut(failure.what)
    parts = [
        f"<p>{service} is broken: the worker {ended}</p><h1>{_error(failure.error)}</h1>"
        if failure.error
        else f"<p>{service} is broken</p><h1>The worker {ended}</h1>",
        "<p class=wait><i></i>This page goes when the code is mended.</p>",
    ]
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
        f"<b>{number}</b>{_cut(text)}\n</span>"
        for number, text in subject.context(frame)
    )
    source = f"<pre class=code>{lines}</pre>" if lines else ""
    place = _cut(f"{subject.rules.shown(frame.file)}:{frame.line}")
    function = f"<small> in {_cut(frame.function)}</small>" if frame.function else ""
    return f"<section><h2>{place}{function}</h2>{source}</section>"


def _error(text: str) -> str:
    """Return the line of an error, with the kind of the error emphasized."""
    kind, colon, message = _cut(text).partition(": ")
    return f"<em>{kind}{colon}</em>{message}"


def _place(frame: Frame, subject: Subject) -> str:
    function = f" in {frame.function}" if frame.function else ""
    return _cut(f"{subject.rules.shown(frame.file)}:{frame.line}{function}")


def _cut(text: str) -> str:
    return html.escape(printable(text[:LINE_MAX]))


def _text(subject: Subject) -> str:
    failure = subject.failure
    ours, _ = failure.split(subject.rules)
    lines = [f"{subject.service} is broken: the worker {failure.what}"]
    lines += [failure.error] if failure.error else []
    for frame in ours[:FRAMES_SHOWN]:
        lines.append(f"  {subject.rules.shown(frame.file)}:{frame.line} {frame.function}".rstrip())
        lines += [f"    {line}" for number, line in subject.context(frame) if number == frame.line]
    if not ours:
        lines += [f"  {line}" for line in failure.output[-OUTPUT_SHOWN:]]
    return "".join(f"{printable(line[:LINE_MAX])}\n" for line in lines)


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
:root {
  color-scheme: light dark;
  font: 16px/1.5 system-ui, sans-serif;
  --back: #f6f6f8; --card: #fff; --line: #e2e2e8; --text: #1c1c22; --dim: #6a6a78;
  --red: #b3261e; --mark: #fdecea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #131317; --card: #1c1c22; --line: #33333d; --text: #ececf1; --dim: #9a9aa8;
    --red: #ff8a80; --mark: #3b1f20;
  }
}
body { margin: 0; background: var(--back); color: var(--text); border-top: 6px solid #d93025 }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem }
p { margin: 0; color: var(--dim) }
h1 { margin: .3rem 0 .8rem; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere }
h1 em { font-style: normal; color: var(--red) }
.wait { font-size: .9rem }
.wait i {
  display: inline-block; width: .55rem; height: .55rem; margin-right: .5rem; border-radius: 50%;
  background: #d93025; animation: wait 1.6s ease-in-out infinite
}
@keyframes wait { 50% { opacity: .2 } }
@media (prefers-reduced-motion: reduce) { .wait i { animation: none } }
section, details {
  margin: 1.2rem 0; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden;
  background: var(--card)
}
h2, summary {
  margin: 0; padding: .5rem .9rem; font: 600 .85rem/1.5 ui-monospace, monospace;
  overflow-wrap: anywhere
}
h2 { border-bottom: 1px solid var(--line) }
h2 small { font-size: inherit; font-weight: normal; color: var(--dim) }
summary { cursor: pointer; color: var(--dim); font-family: inherit }
pre { margin: 0; padding: .5rem .9rem; overflow-x: auto; font: .85rem/1.6 ui-monospace, monospace }
.code { padding: .4rem 0 }
.code span { display: block; width: max-content; min-width: 100%; box-sizing: border-box;
  padding-right: .9rem; border-left: 3px solid transparent }
.code b { display: inline-block; width: 3.2rem; margin-right: 1rem; text-align: right;
  font-weight: normal; color: var(--dim); user-select: none }
.near { color: var(--dim) }
.code .here { background: var(--mark); border-left-color: #d93025 }
.here b { color: var(--red) }
"""
_SCRIPT = """
"use strict";
const shown = "THE-NUMBER-OF-THIS-PAGE";
async function look() {
  try {
    const answer = await fetch(location.href, {method: "HEAD", cache: "no-store"});
    if (answer.headers.get("X-Sockmgr-Error") !== shown) {
      // replace() instead of reload(), which would post a form again. With a #fragment, replace()
      // would only scroll.
      location.hash ? location.reload() : location.replace(location.href);
      return;
    }
  } catch {}
  setTimeout(look, 500);
}
setTimeout(look, 500);
"""
