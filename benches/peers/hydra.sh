#!/usr/bin/env bash
# Builds Ory Hydra, for benches/compare.sh, in the folder that is the argument. Takes a few minutes the first time.
set -euo pipefail
mkdir -p "$1"
cd "$1"
export GOFLAGS=-mod=mod
rm -f go.mod go.sum
go mod init peers 2>/dev/null
# Its own go.mod replaces this, which counts in no other module.
go mod edit -replace github.com/gobuffalo/pop/v6=github.com/ory/pop/v6@v6.2.1-0.20241121111754-e5dfc0f3344b
go get -tool github.com/ory/hydra/v2@v2.3.0 2>/dev/null
go build -o hydra github.com/ory/hydra/v2
