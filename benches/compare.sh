#!/usr/bin/env bash
# Portcullis and its peers, one after another in one run on the same cores; writes docs/dev/benchmarks.md.
# Needs two cores or more, Rust, Python, Node and apt, and Go for Ory Hydra; installs what else is missing. With four
# cores the servers under load have two of them, with two or three they have one; the load tool, the identity
# provider, the MCP server and Redis have the others.
#
# Usage: benches/compare.sh [rounds] [seconds] [part…]    three rounds of four seconds; about 25 minutes
#        benches/compare.sh --render                      the page again, from target/compare/results.json
# Parts: portcullis fastmcp oidc-provider hydra gateway one-core (in each round), streams million postgres (once).
# What other parts measured before is kept. PORTCULLIS=PATH measures that binary, and builds none.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --render ]; then exec python3 benches/compare.py --render; fi
rounds=${1:-3} seconds=${2:-4} parts=("${@:3}")
wants() { # whether one of these parts is to be measured
    local part wanted
    [ ${#parts[@]} -gt 0 ] || return 0
    for part in "${parts[@]}"; do for wanted; do [ "$part" != "$wanted" ] || return 0; done; done
    return 1
}

missing=()
command -v nginx >/dev/null || missing+=(nginx-light)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

work=$PWD/target/compare
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then python3 -m venv "$work/venv"; fi
if wants fastmcp one-core streams; then
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check uv
    # An override, because a version that was published in the last days may not have reached every mirror.
    echo "certifi>=2026.1.4" >"$work/override.txt"
    "$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" --override "$work/override.txt" \
        -r benches/peers/requirements.txt
fi
if wants oidc-provider; then
    (cd benches/peers && npm install --no-package-lock --no-audit --no-fund --silent)
fi
if wants hydra && [ ! -x "$work/hydra/hydra" ] && command -v go >/dev/null; then benches/peers/hydra.sh "$work/hydra"; fi

[ -n "${PORTCULLIS:-}" ] || cargo build --release --quiet
(cd load && cargo build --release --quiet --target-dir "$work/load")

# A server that relays an event stream needs two files for it, and 20,000 streams are tried.
if [ "$(ulimit -Hn)" -lt 65536 ]; then prlimit --pid $$ --nofile=65536:65536 2>/dev/null || true; fi
ulimit -n "$(ulimit -Hn)"

if wants hydra postgres; then
    # On the same disk as SQLite, if PostgreSQL's user gets there.
    if [ "$(id -u)" -ne 0 ] || runuser -u nobody -- test -x "$work"; then export TMPDIR=$work; fi
    # shellcheck disable=SC2034
    postgres_options=("max_connections = 300")
    . scripts/postgres.sh
    COMPARE_POSTGRES_PORT=$port COMPARE_POSTGRES_BIN=$bin
    COMPARE_POSTGRES_PID=$(head -n 1 "$data/db/postmaster.pid")
    export COMPARE_POSTGRES_PORT COMPARE_POSTGRES_BIN COMPARE_POSTGRES_PID
fi

# Not exec: PostgreSQL is stopped at the end, however that comes.
"$work/venv/bin/python" benches/compare.py "$rounds" "$seconds" "${parts[@]}" &
compare=$!
trap 'kill "$compare" 2>/dev/null' INT TERM
# A signal interrupts the first wait, while compare.py stops what it started.
wait "$compare" || true
status=0
wait "$compare" || status=$?
exit "$status"
