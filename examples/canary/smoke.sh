#!/bin/sh
# Run once in each step of a canary. If it fails, the last line is in the verdict.
echo "step $SOCKMGR_STEP: generation $SOCKMGR_GENERATION gets $SOCKMGR_SHARE % of the connections"
if [ -e not-yet ]; then
    echo "somebody has put a file not-yet here"
    exit 1
fi
