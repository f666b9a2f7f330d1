#!/usr/bin/env bash
# A year of ten thousand people on a clock that is moved: how the database grows, and what clean-up keeps.
# Usage: benches/year.sh [people] [days]; the model is in benches/year.rs. YEAR_FOLDER: where the database is made.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${YEAR_FOLDER:-$PWD/target/year}
rm -rf "$folder"
exec cargo bench --quiet --bench year -- "$folder" "${1:-10000}" "${2:-365}"
