"""The pages of the docs, and the configs in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*.md"))
PAGES += sorted((ROOT / "docs" / "from").glob("*.md"))
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(?:command|app) +=", re.MULTILINE)


def whole_configs(page: Path) -> list[str]:
    """Return the snippets of a page that are a config by themselves."""
    found = TOML.findall(page.read_text())
    return [text for text in found if "[service." in text and PROGRAM.search(text)]
