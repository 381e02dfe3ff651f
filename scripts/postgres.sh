#!/usr/bin/env bash
# Prints the folder with PostgreSQL's programs (initdb, postgres) for the ledger's tests, after installing them where that can be done without asking.
#   POSTGRES=/path/to/bin    uses those
set -euo pipefail
cd "$(dirname "$0")/.."

found() {
    for d in "${POSTGRES:-}" /usr/lib/postgresql/*/bin "$(dirname "$(command -v initdb || echo /nowhere/initdb)")" /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        [ -n "$d" ] && [ -x "$d/initdb" ] && "$d/postgres" --version >/dev/null 2>&1 && newest=$d && [ "$d" = "${POSTGRES:-}" ] && break
    done
    [ -n "${newest:-}" ] && echo "$newest"
}

found && exit
echo 'No PostgreSQL for the ledger tests yet: installing one.' >&2
as_root=; [ "$(id -u)" = 0 ] || as_root='sudo -n'
if command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    # The package would make and start a cluster of its own; the tests make theirs.
    { $as_root mkdir -p /etc/postgresql-common && { [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf; } &&
      $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } >&2 </dev/null || true
    found && exit
fi
echo 'No PostgreSQL could be installed. The ledger tests start one of their own: install postgresql with your package manager, or set POSTGRES=/path/to/its/bin.' >&2
exit 2
