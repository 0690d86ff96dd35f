"""`python -m tests.torture`: load a server on this machine and say what became of every request."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from sockmgr.torture.load.mode import Kind, Mode
from tests.helpers.load import OPTIONS, Target, load_for, parse_mode


def _mode(text: str) -> Mode:
    try:
        return parse_mode(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="http://HOST:PORT, loopback")
    parser.add_argument(
        "--unix", metavar="PATH", help="the path of a unix socket, instead of --url"
    )
    parser.add_argument(
        "--mode",
        type=_mode,
        action="append",
        metavar="KIND[:KEY=VALUE,…]",
        help=f"{' '.join(Kind)}; keys: {' '.join(OPTIONS)}",
    )
    parser.add_argument("--duration", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--drain", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser.parse_args()


def main() -> int:
    """Run; return 0 only if every request was answered as it should."""
    arguments = _arguments()
    try:
        target = Target.at_path(arguments.unix) if arguments.unix else Target.at_url(arguments.url)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    async def run() -> int:
        modes = arguments.mode or [parse_mode("short")]
        result = await load_for(arguments.duration, target, modes, drain=arguments.drain)
        print(json.dumps(result.as_dict()) if arguments.json else result)
        return 1 if result.failed else 0

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
