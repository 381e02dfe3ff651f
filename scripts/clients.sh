#!/usr/bin/env bash
# Makes .venv-clients, where the public clients of the venues and of Google Cloud live for the tests of the sandboxes, and prints its Python.
# Does nothing more when tests/clients/requirements.txt and the folder are those of last time.
#   PYTHON=python3.12      another interpreter than the project's own
set -euo pipefail
cd "$(dirname "$0")/.."
home=.venv-clients; list=tests/clients/requirements.txt; log=$home/setup.log
mark() { { cat "$list" "$0"; pwd -P; } | cksum; }
whole() { [ -x $home/bin/python ] && [ "$(cat $home/.made 2>/dev/null)" = "$(mark)" ]; }
ready() { echo "$PWD/$home/bin/python"; }
whole && { ready; exit; }

# One at a time: the tests of three venues may ask for it at the same moment.
until mkdir "$home.lock" 2>/dev/null; do
    holder=$(cat "$home.lock/pid" 2>/dev/null || sleep 1; cat "$home.lock/pid" 2>/dev/null || echo 0)
    kill -0 "$holder" 2>/dev/null || rm -rf "$home.lock"   # whoever held it has gone
    sleep 0.5
done
echo $$ >"$home.lock/pid"
trap 'rm -rf "$home.lock"' EXIT
whole && { ready; exit; }

python=${PYTHON:-}
for p in .venv/bin/python python3.11 python3.12 python3.13 python3; do
    [ -n "$python" ] || ! "$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || python=$p
done
[ -n "$python" ] || { echo 'No Python from 3.11 to 3.13 found. Name one: PYTHON=/path/to/python3.11 scripts/clients.sh' >&2; exit 2; }
echo "Making $home: the public clients (about a minute, 430 MB)" >&2
"$python" -m venv --clear "$home"
: >"$log"
"$home/bin/python" -m pip --disable-pip-version-check install --progress-bar off -r "$list" >>"$log" 2>&1 ||
    { grep '^ERROR' "$log" >&2 || tail -n 15 "$log" >&2; echo "pip stopped; the whole log is $home/setup.log" >&2; exit 2; }
mark >"$home/.made"
ready
