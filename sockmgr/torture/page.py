"""The report as one page of HTML that needs nothing else: no script, no font, no network. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import sockmgr
from sockmgr.torture import report
from sockmgr.torture.judgement import Loss
from sockmgr.torture.plot import svg
from sockmgr.torture.run import Run, Trial

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #656d76; --line: #d8dee4; --bad: #c4231c;
  --paper: #fff; --card: #f6f8fa; --good: #1a7f37 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #8d96a0; --line: #30363d;
  --bad: #ff6a60; --paper: #0d1117; --card: #161b22; --good: #3fb950 } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
code, td { font-variant-numeric: tabular-nums } p, li { color: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
.matrix td + td, .matrix th + th { text-align: right }
.ok { color: var(--good) } .failed { color: var(--bad); font-weight: 600 }
.none { color: var(--soft) }
.trials { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr));
  gap: 1rem; margin: 1rem 0 }
section { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem } section h3 { margin: 0; font-size: 1rem } section p { margin: .1rem 0 }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0 } svg { width: 100%; display: block }
svg text { fill: var(--soft); font: 10px system-ui, sans-serif } svg .mark { text-anchor: end }
svg .tick { text-anchor: middle } svg .what { fill: var(--bad) }
path { fill: none } .axis, .grid { stroke: var(--line) } .grid { stroke-dasharray: 1 3 }
.median { stroke: #0969da; stroke-width: 1.6; stroke-linecap: round }
.longest { stroke: #e0823d; stroke-linecap: round }
.fault { stroke: var(--bad); stroke-dasharray: 4 3 }
[class^=s], [class^=f] { shape-rendering: crispEdges }
.excused { fill: #9aa3ad; background: #9aa3ad }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
"""
SERIES = ("#4c8dd6", "#e0a13d", "#53a567", "#b073c9", "#d9675f", "#45adb0", "#8c8c54", "#7b83d1")
CLASSES = ("#8f1d14", "#d1342b", "#ef7f3c", "#c79a00", "#7a3fb0", "#c2378f", "#2f74c0", "#0f8a7e",
           "#59636e")  # fmt: skip


def page(runs: Sequence[Run], *, above: str = "") -> str:
    """Return the whole page: each run with its plots, and some HTML `above` them."""
    colours = [f".s{n} {{ fill: {colour} }}" for n, colour in enumerate(SERIES)]
    colours += [f".f{n} {{ fill: {c}; background: {c} }}" for n, c in enumerate(CLASSES)]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>sockmgr torture</title><style>{STYLE}{' '.join(colours)}</style>",
        f"<h1>sockmgr torture</h1>{above}",
        *_key(),
    ]
    for number, run in enumerate(runs):
        parts += _run(run, number, is_open=len(runs) == 1)
    parts.append(f"<p>Made by sockmgr {sockmgr.__version__}.</p></html>\n")
    return "".join(parts)


def style(trial: Trial) -> str:
    return "none" if trial.skipped else "ok" if trial.passed else "failed"


def _key() -> Iterator[str]:
    yield "<p class=key>Failures:"
    for number, loss in enumerate(Loss):
        yield f"<i class=f{number}></i>{loss}"
    yield "<i class=excused></i>excused. Workers and versions have a colour each.</p>"


def _run(run: Run, number: int, *, is_open: bool) -> Iterator[str]:
    title = html.escape(run.title)
    state = "ok" if run.passed else "failed"
    yield f"<details id=run{number}{' open' if is_open else ''}>"
    yield f"<summary>{title}: <span class={state}>{report.total(run)}</span></summary>"
    yield f"<p><code>{html.escape(' '.join(run.plan.command))}</code></p>"
    yield "<div class=wide><table><tr>"
    yield "".join(f"<th>{html.escape(name)}" for name in report.HEADERS)
    for trial, row in zip(run.trials, report.rows(run), strict=True):
        yield f"<tr class={style(trial)}>"
        yield "".join(f"<td>{html.escape(text)}" for text in row)
    yield "</table></div><div class=trials>"
    for trial in run.trials:
        if not trial.skipped:
            yield _section(trial)
    yield "</div></details>"


def _section(trial: Trial) -> str:
    told = "".join(f"<p>{html.escape(text)}</p>" for text in report.told(trial))
    return (
        f"<section><h3>{html.escape(trial.name)} "
        f"<span class={style(trial)}>{html.escape(report.verdict(trial))}</span></h3>"
        f"<p>{html.escape(trial.what)}</p>{svg(trial)}{told}</section>"
    )
