"""`python -m sockmgr.sweep`: how guards that older versions started call sockmgr.programs.sweep."""

import sys

from sockmgr.programs.sweep import main

if __name__ == "__main__":
    sys.exit(0 if main(map(int, sys.argv[1:])) else 1)
