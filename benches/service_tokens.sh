#!/usr/bin/env bash
# The gateway with and without a fresh token of a service, in turns in one run: the sign-in's own token, one of a
# connection of the whole MCP server, and one of a tool. Prints one line of JSON for each; `ratio` is calls a second
# with the token, divided by calls without, and should be at least 0.97. Two equal MCP servers come first: how far
# their ratio is from 1 is the noise. Usage: benches/service_tokens.sh [rounds] [seconds] [callers]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-20} seconds=${2:-1} callers=${3:-16}

cargo build --release --quiet
root=$PWD work=$PWD/target/service-tokens
mkdir -p "$work"
(cd load && cargo build --release --quiet --target-dir "$root/target/compare/load")
load=$root/target/compare/load/release/portcullis-load
# The server has two cores and the rest two others, if there are four.
server=() rest=()
if [ "$(nproc)" -ge 4 ]; then server=(taskset -c 0,1) rest=(taskset -c 2,3); fi

base=http://127.0.0.1:9000 provider=http://127.0.0.1:9100 backend=127.0.0.1:9200
rm -f "$work"/portcullis.db*
{
    cat <<END
public_url   = "$base"
listen       = "127.0.0.1:9000"
database_url = "sqlite://$work/portcullis.db"
[upstream]
provider      = "oidc"
issuer        = "$provider"
client_id     = "load"
client_secret = "load-secret-load-secret"
[limits]
request_rates = false
clients = 10000000
pending_logins = 1000000
connections = 100000
requests_per_person = 100000
streams_per_person = 100000
[[connection]]
name          = "service"
provider      = "oauth2"
client_id     = "load"
client_secret = "load-secret-load-secret"
scopes        = ["openid"]
authorize_url = "$provider/authorize"
token_url     = "$provider/token"
userinfo_url  = "$provider/userinfo"
END
    for path in plain again sign-in connected ruled tool; do
        printf '[[resource]]\npath = "/%s"\ntarget = "http://%s/mcp"\nscopes = ["read", "write"]\n' "$path" "$backend"
        case $path in
            sign-in) printf '[resource.upstream_token]\nheader = "X-Portcullis-Upstream-Token"\n' ;;
            connected) printf '[[resource.connection]]\nname = "service"\nheader = "X-Service-Token"\n' ;;
            # Bodies are parsed for either.
            ruled) printf '[resource.tools]\nother = ["write"]\n' ;;
            tool) printf '[[resource.connection]]\nname = "service"\nheader = "X-Service-Token"\ntools = ["ping"]\n' ;;
        esac
    done
} >"$work/portcullis.toml"

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
until_it_answers() {
    for _ in $(seq 200); do
        if answers "$1"; then return; fi
        sleep 0.1
    done
    echo "nothing answers at port $1; see $work" >&2
    exit 1
}
if answers 9000; then
    echo "something answers at port 9000 already" >&2
    exit 1
fi
"${rest[@]}" "$load" around --backend "$backend" --one-person >"$work/around.log" 2>&1 &
around=$!
"${server[@]}" target/release/portcullis serve --config "$work/portcullis.toml" >"$work/portcullis.log" 2>&1 &
portcullis=$!
trap 'kill $around $portcullis 2>/dev/null; wait' EXIT
until_it_answers 9100
until_it_answers 9000

pairs() {
    local name=$1 first=$2 second=$3
    shift 3
    printf '%s: ' "$name"
    "${rest[@]}" "$load" pairs --base "$base" --first "$base/$first" --second "$base/$second" \
        --rounds "$rounds" --seconds "$seconds" --callers "$callers" "$@"
}
pairs "no token, twice" plain again
pairs "the sign-in's token" plain sign-in
pairs "a connection's token" plain connected --connect "$base/connect/service?for=$base/connected"
pairs "a tool's token" ruled tool
