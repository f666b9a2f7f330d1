#!/usr/bin/env bash
# Portcullis and its peers, one after another in one run on the same cores; writes docs/dev/benchmarks.md.
# Needs Rust, Python, Node and apt; installs what is missing. The server under load has two cores, the load tool,
# the identity provider and the MCP server two others. Usage: benches/compare.sh [rounds] [seconds]
set -euo pipefail
cd "$(dirname "$0")/.."

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
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv
# An override, because a version that was published in the last days may not have reached every mirror.
echo "certifi>=2026.1.4" >"$work/override.txt"
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" --override "$work/override.txt" \
    -r benches/peers/requirements.txt
(cd benches/peers && npm install --no-package-lock --no-audit --no-fund --silent)

cargo build --release --quiet
(cd load && cargo build --release --quiet --target-dir "$work/load")

ulimit -n "$(ulimit -Hn)"
exec "$work/venv/bin/python" benches/compare.py "$work" "${1:-3}" "${2:-5}"
