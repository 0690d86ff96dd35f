"""Draw docs/reload.svg, the picture of a reload: `python docs/make_reload.py`.

It has a ground of its own, and so can be read on light and on dark pages. A test fails while it is
due.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PICTURE = Path(__file__).with_name("reload.svg")
WIDTH, HEIGHT = 780, 300
LEFT, RIGHT = 140, 756
# What happens, and where: shares of the width.
START, CUT_OVER, COMMIT, GONE = 0.12, 0.48, 0.74, 0.92
MARKS = {START: "sockmgr reload", CUT_OVER: "cut-over", COMMIT: "commit"}
OLD, NEW, CLIENTS = 70, 126, 200  # the rows
TALL = 34
STEP = 22  # between two connections

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.name { font-weight: 600 }
.small { font-size: 12px; fill: #424a53 }
.in { fill: #fff }
.ground { fill: #fff; stroke: #d0d7de }
.old { fill: #8250df } .old.fades { fill: #d8c8f6 }
.new { fill: #1a7f37 } .new.fades { fill: #cfead6 }
.mark { stroke: #57606a; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #c9d1d9 } .in { fill: #fff }
  .ground { fill: #161b22; stroke: #30363d }
  .old.fades { fill: #3c2a63 } .new.fades { fill: #12391f }
  .mark { stroke: #9198a1 }
}
"""


def at(share: float) -> float:
    return round(LEFT + share * (RIGHT - LEFT), 1)


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">{words}</text>'


def bar(row: int, begin: float, end: float, words: str, style: str) -> Iterator[str]:
    """Yield a bar with words in its middle: white on full colour, dark on faded."""
    x, width = at(begin), round(at(end) - at(begin), 1)
    yield f'<rect x="{x}" y="{row}" width="{width}" height="{TALL}" rx="4" class="{style}"/>'
    shown = "small" if "fades" in style else "in"
    yield text(x + width / 2, row + 22, words, shown, "middle")


def connections() -> Iterator[str]:
    """Yield new connections as dots, each in the colour of the generation that gets it."""
    for x in range(LEFT + 10, RIGHT, STEP):
        style = "old" if x < at(CUT_OVER) else "new"
        yield f'<circle cx="{x}" cy="{CLIENTS}" r="6" class="{style}"/>'


def picture() -> str:
    """Return the whole picture."""
    told = "A reload: the new generation boots beside the old; at the cut-over all new connections "
    told += "go to it in one step; after the commit the old one finishes and is gone"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{told}">',
        f"<style>{STYLE}</style>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="8" class="ground"/>',
    ]
    for share, words in MARKS.items():
        parts += [
            f'<path d="M{at(share)} 44V{CLIENTS + 22}" class="mark"/>',
            text(at(share), 34, words, "name", "middle"),
        ]
    for row, words in ((OLD, "old workers"), (NEW, "new workers")):
        parts.append(text(16, row + 22, words, "name"))
    parts.append(text(16, CLIENTS + 5, "new connections", "name"))
    parts += [
        *bar(OLD, 0, CUT_OVER, "accept and answer", "old"),
        *bar(OLD, CUT_OVER, COMMIT, "finish what they have", "old fades"),
        *bar(OLD, COMMIT, GONE, "told to stop", "old fades"),
        *bar(NEW, START, CUT_OVER, "boot, until each is seen to accept", "new fades"),
        *bar(NEW, CUT_OVER, 1, "accept and answer", "new"),
        *connections(),
        text(LEFT, 256, "Not ready, or dead before the commit? Then all new connections go to the "
             "old workers,"),
        text(LEFT, 276, "which have never stopped, and the command says why and fails."),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture())
