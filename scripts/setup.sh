#!/usr/bin/env bash
# Makes .venv from requirements.lock. Does nothing when the lock, the package's description and the folder are those of last time.
#   PYTHON=python3.12      another interpreter (3.11, 3.12 and 3.13 are known to work)
#   TORCH_INDEX=URL        where torch comes from, when not from pip's own index
set -euo pipefail
cd "$(dirname "$0")/.."
log=.venv/setup.log
[ -t 1 ] && tty=1 || tty=0
say() { printf '%s\n' "$*"; }
stop() { printf '\n%s\n' "$*" >&2; exit 2; }

known() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
minor() { "$1" -c 'import sys; print(sys.version_info[1])' 2>/dev/null; }
here() { grep -qsF "$PWD/.venv/bin/python" .venv/bin/pip && .venv/bin/python -c 'import pip' 2>/dev/null; }   # whole, and not moved from elsewhere

python=${PYTHON:-}
[ -n "$python" ] || ! here || python=.venv/bin/python
for p in python3.11 python3.12 python3.13 python3; do
    if [ -z "$python" ] && known "$p"; then python=$p; fi
done
[ -n "$python" ] || stop "No Python found. Install Python 3.11 (or 3.12, 3.13), or name one: make PYTHON=/path/to/python3.11"
known "$python" || stop "$python is not Python 3.11, 3.12 or 3.13, for which every package has a wheel. Name another: make PYTHON=/path/to/python3.11"

digest() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(b"\0".join(open(f, "rb").read() for f in sys.argv[1:])).hexdigest()[:16])' "$@"; }
packages="$(digest requirements.lock) 3.$(minor "$python") $PWD"
project=$(digest setup.py settings.ini pyproject.toml scripts/setup.sh)
[ -x .venv/bin/python ] && [ "$(cat .venv/.packages 2>/dev/null)" = "$packages" ] && [ "$(cat .venv/.project 2>/dev/null)" = "$project" ] && exit 0

failed() {
    { grep '^ERROR' "$log" || tail -n 15 "$log"; } | tail -n 15 >&2
    stop "pip stopped (above); the whole log is $log. Running the command again goes on from here."
}

pip() {   # quiet on the terminal, complete in the log
    .venv/bin/python -m pip --disable-pip-version-check "$@" >>"$log" 2>&1 || failed
}

count() {   # pip's lines, as a count: one line that moves on a terminal, a line for every hundred packages elsewhere
    awk -v all="$1" -v tty="$tty" '
        { print >> "'"$log"'" }
        /^(Collecting|Processing|Requirement already satisfied: [^ ]+==)/ { n++; if (tty) { printf "\r      found %d of %d", n, all; fflush() } else if (n % 100 == 0) { printf "      found %d of %d\n", n, all; fflush() } }
        /^Installing collected packages/ { if (tty) printf "\n"; tty = 0; print "      unpacking (a minute or two)"; fflush() }
        END { if (tty && n) printf "\n" }'
}

torch_from() {   # the CPU build on a Linux machine without a GPU, where the default index would bring 3 GB of CUDA along
    [ -n "${TORCH_INDEX:-}" ] && { echo "--index-url $TORCH_INDEX"; return; }
    [ "$(uname -s)" = Linux ] || return 0
    command -v nvidia-smi >/dev/null && return 0
    .venv/bin/python -m pip install --dry-run --no-deps --quiet --report - "$1" 2>/dev/null | grep -qE '(\+|%2B)cpu' && return 0
    cpu=https://download.pytorch.org/whl/cpu
    .venv/bin/python -c "import urllib.request as u; u.urlopen('$cpu/torch/', timeout=10)" 2>/dev/null && echo "--index-url $cpu" || true
}

if [ "$(cat .venv/.packages 2>/dev/null)" != "$packages" ]; then
    say "Setting up gekko in .venv (the first time: about 5 minutes and 3.4 GB)."
    say "1/4   Python: $("$python" -c 'import platform; print(platform.python_version())')"
    if ! here || [ "$(minor "$python")" != "$(minor .venv/bin/python)" ]; then
        "$python" -m venv --clear .venv || stop "Python could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    fi
    : >"$log"
    torch=$(grep -E '^torch==' requirements.lock)
    from=$(torch_from "$torch")
    say "2/4   $torch${from:+ from ${from#--index-url }}"
    pip install --no-deps $from "$torch"   # $from: two words, or none
    total=$(grep -cE '^[A-Za-z][^;]*$' requirements.lock)
    say "3/4   $total packages, at the versions of requirements.lock"
    PYTHONUNBUFFERED=1 .venv/bin/python -m pip --disable-pip-version-check install --progress-bar off -r requirements.lock 2>>"$log" | count "$total" || failed
fi
say "4/4   gekko itself"
pip install --no-deps --no-build-isolation -e .
pip check
.venv/bin/gekko kernel install >>"$log" 2>&1 || failed
scripts/hooks.sh
echo "$packages" >.venv/.packages
echo "$project" >.venv/.project
say "      ready"
