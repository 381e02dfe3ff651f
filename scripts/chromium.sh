#!/usr/bin/env bash
# Prints the path of a Chromium for the browser tests, after installing one where that can be done without asking.
#   CHROMIUM=/path/to/chromium    uses that one
set -euo pipefail
cd "$(dirname "$0")/.."

found() {
    for c in "${CHROMIUM:-}" chromium google-chrome chromium-browser '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome' '/Applications/Chromium.app/Contents/MacOS/Chromium'; do
        [ -n "$c" ] && p=$(command -v "$c") && "$p" --version >/dev/null 2>&1 && { echo "$p"; return 0; }
    done
    p=$(.venv/bin/python -c 'from playwright.sync_api import sync_playwright as s
with s() as p: print(p.chromium.executable_path)' 2>/dev/null) && [ -x "$p" ] && echo "$p"
}

found && exit
echo 'No Chromium for the browser tests yet: installing one.' >&2
as_root=; [ "$(id -u)" = 0 ] || as_root='sudo -n'
if grep -qsE '^ID=("?)debian\1$' /etc/os-release && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    { $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2 </dev/null || true
    found && exit
fi
with_deps=; [ "$(uname -s)-$(id -u)" != Linux-0 ] || with_deps=--with-deps
.venv/bin/playwright install $with_deps chromium >&2 || true
found && exit
echo 'No Chromium could be installed. The browser tests need one: install chromium or google-chrome with your package manager, or set CHROMIUM=/path/to/it.' >&2
exit 2
