#!/bin/sh
# ./release.sh 2      deploy version 2, first to a share of the clients; exit 1 if it was taken back
# ./release.sh 3 4    version 3, which answers every fourth request by 500
set -e
cd "$(dirname "$0")"
printf 'VERSION = "%s"\nFAILS = %s\n' "$1" "${2:-0}" > version.new
mv version.new version.py
exec sockmgr reload
