"""`python -m sockmgr` is `sockmgr`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; a probe does not wait for what the other verbs load."""
    if sys.argv[1:2] == ["health"]:
        from sockmgr.client import health  # noqa: PLC0415 - no other verb needs it

        if (code := health.quick(sys.argv[2:])) is not None:
            sys.exit(code)
    from sockmgr import cli  # noqa: PLC0415 - takes most of a verb's time

    cli.main()


if __name__ == "__main__":
    main()
