"""What is outside of a config for this process: its environment, and files as it may read them."""

from __future__ import annotations

import os
from pathlib import Path

from sockmgr.config.outside import Outside
from sockmgr.kernel import regular

ENV_FILE_MAX = 1 << 20  # bytes: execve(2) takes about as much


def here() -> Outside:
    return Outside(os.environ, lambda path: regular.read(Path(path), ENV_FILE_MAX))
