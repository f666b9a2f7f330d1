# The same commands that CI runs. `just` alone lists them.

default:
    @just --list

# Formatting, lints, documentation and tests: before every commit
check: format lint docs test

format:
    cargo fmt --check

lint:
    cargo clippy --all-targets --quiet -- -D warnings

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --quiet

test:
    cargo test

# Writes the documents that are made from the program: configuration.md, cli.md, the JSON Schema
documents:
    UPDATE_DOCUMENTS=1 cargo test --test it -- repository::generated

# The integration tests on PostgreSQL
postgres:
    scripts/test-postgres

# Every race of tests/it/laws/races.rs, 200 rounds, on SQLite and PostgreSQL; `just races 20` for fewer
races rounds="200":
    scripts/test-races {{rounds}}

# Kills under load, losses of power, full and broken disks
crashes kills="500":
    scripts/test-crashes {{kills}}

# Every fuzz target, so many seconds each
fuzz seconds="5":
    scripts/test-fuzz {{seconds}}

# Three replicas on one PostgreSQL: killed, paused, replaced, and PostgreSQL restarted
replicas rounds="1":
    scripts/test-replicas {{rounds}}

# A certificate from Pebble, renewed by one of two replicas
acme:
    scripts/test-acme

# nginx, haproxy and Caddy in front, as docs/proxies configures them
proxies:
    scripts/test-proxies

# MCP servers on stdio behind the bridge and the gateway, with real clients
bridge:
    scripts/test-bridge

# The real flow in headless Chromium; pictures of every page in screenshots/
browser:
    SCREENSHOTS=screenshots scripts/test-browser

# Pictures of every page in a folder, without the other tests of the browser: just pictures /tmp/pictures
pictures folder="screenshots":
    scripts/pictures {{folder}}

# The README and the quickstarts, word for word; `just newcomer README.md` for one of them
newcomer *documents:
    scripts/test-newcomer {{documents}}

# The documents as a book with search, in target/book/book
book:
    scripts/test-book

# The official SDKs, Inspector's command line, the conformance suite, a foreign identity provider and MCP server
clients:
    scripts/test-clients

# The MCP servers of examples/ with real tokens; `just examples --stay` leaves them running
examples *arguments:
    scripts/test-examples {{arguments}}

# Real identity providers and their login pages: Keycloak, Dex, kinds of oidc-provider
providers:
    scripts/test-providers

# The Helm chart: lint, schemas, wrong values, and the real server with what it renders
chart:
    scripts/test-chart

# The alert rules, each tried, and the queries of the dashboard
alerts:
    scripts/test-alerts

# Debian package, image and Compose, from nothing to a tool call; `just packages dist` for what a release has
packages *arguments:
    scripts/test-packages {{arguments}}

# Everything that a release has, in dist/: `just release --only image`
release *arguments:
    scripts/release {{arguments}}

# Licences, sources and banned crates (cargo install cargo-deny)
deny:
    cargo deny check bans licenses sources

# Compared with its peers on this machine; writes docs/dev/benchmarks.md
compare:
    benches/compare.sh

# Two hours under load, and what grew; the result is in target/soak
soak minutes="120":
    benches/soak.sh {{minutes}}

# A year of ten thousand people, on a clock that is moved
year:
    benches/year.sh

# Everything with one person's machine
demo:
    cargo run --release -- demo
