#!/usr/bin/env bash
# Hours under mixed load at gentle rates, and what grew: see benches/soak.py. Usage: benches/soak.sh [minutes]
# Files are in target/soak: samples.csv, result.md, troubles.txt (there only after a failure), server.log.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/soak
rm -rf "$work" && mkdir -p "$work"
cargo build --release --quiet
(cd load && cargo build --release --quiet --target-dir "$work/../load")
exec python3 benches/soak.py "$work" target/release/portcullis target/load/release/portcullis-load "${1:-120}"
