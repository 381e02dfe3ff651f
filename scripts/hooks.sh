#!/usr/bin/env bash
# nbdev's hooks, kept inside this checkout: nothing is written to the home folder, and no activated environment is needed.
#   on save in Jupyter  notebooks are cleaned (tags stay)      on merge   conflicts are cut at cells, not through JSON
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .venv/etc/jupyter
cat >.venv/etc/jupyter/jupyter_server_config.py <<'PY'
from contextlib import suppress

from nbdev.clean import clean_jupyter


def clean(**kw):
    with suppress(FileNotFoundError): clean_jupyter(**kw)   # a new file has no signature to renew


c.FileContentsManager.pre_save_hook = clean
PY

[ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] || exit 0   # an archive, or a copy inside another repository
git config --local merge.nbdev-merge.name 'resolve conflicts with nbdev_fix'
git config --local merge.nbdev-merge.driver '.venv/bin/nbdev_merge %O %A %B %P'
hook=$(git rev-parse --git-path hooks)/post-merge
if [ ! -e "$hook" ]; then
    mkdir -p "$(dirname "$hook")"
    printf '#!/bin/sh\n# merged notebooks are trusted, so that their outputs show\n[ ! -x .venv/bin/nbdev_trust ] || .venv/bin/nbdev_trust\n' >"$hook"
    chmod +x "$hook"
fi
