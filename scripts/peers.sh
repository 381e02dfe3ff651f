#!/usr/bin/env bash
# Makes .venv-peers/NAME, where the backtesters live that ours is held against, and prints its Python. NAME is tables (vectorbt, backtesting.py) or nautilus (nautilus_trader).
# Does nothing more when bench/peers/NAME.txt and the folder are those of last time.
#   PYTHON=python3.12      another interpreter than the project's own
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-}; list=bench/peers/$name.txt; home=.venv-peers/$name; log=$home/setup.log
[ -n "$name" ] && [ -f "$list" ] || { echo "Which peers? scripts/peers.sh $(basename -as .txt bench/peers/*.txt | paste -sd'|')" >&2; exit 2; }
mark() { { cat "$list" "$0"; pwd -P; } | cksum; }
whole() { [ -x "$home/bin/python" ] && [ "$(cat "$home/.made" 2>/dev/null)" = "$(mark)" ]; }
ready() { echo "$PWD/$home/bin/python"; }
whole && { ready; exit; }

# One at a time: a test and a bench may ask for it at the same moment.
mkdir -p .venv-peers
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
[ -n "$python" ] || { echo "No Python from 3.11 to 3.13 found. Name one: PYTHON=/path/to/python3.11 scripts/peers.sh $name" >&2; exit 2; }
echo "Making $home: $(grep -o '^[a-z_]*==[^ ]*' "$list" | paste -sd' ') (a minute or two, up to 900 MB)" >&2
"$python" -m venv --clear "$home"
: >"$log"
"$home/bin/python" -m pip --disable-pip-version-check install --only-binary :all: --progress-bar off -r "$list" >>"$log" 2>&1 ||
    { grep '^ERROR' "$log" >&2 || tail -n 15 "$log" >&2; echo "pip stopped; the whole log is $log" >&2; exit 2; }
mark >"$home/.made"
ready
