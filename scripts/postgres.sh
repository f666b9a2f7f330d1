# Starts a throw-away PostgreSQL on loopback for the script that reads this, until that ends. Installs it
# with apt when it is missing. Takes postgres_options, lines
# of its configuration; gives $port, and "${control[@]}" to stop and start it by.

find_binaries() {
    local at
    for at in $(command -v pg_config >/dev/null && pg_config --bindir) /usr/lib/postgresql/*/bin /usr/local/bin; do
        if [ -x "$at/initdb" ]; then echo "$at"; return; fi
    done
}

bin=$(find_binaries)
if [ -z "$bin" ]; then
    export DEBIAN_FRONTEND=noninteractive
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    bin=$(find_binaries)
fi

data=$(mktemp -d)
# PostgreSQL refuses to run as root.
as_owner=()
if [ "$(id -u)" -eq 0 ]; then
    id postgres >/dev/null 2>&1 || useradd --system --no-create-home postgres
    chown postgres "$data"
    as_owner=(runuser -u postgres --)
fi
control=("${as_owner[@]}" "$bin/pg_ctl" -w -D "$data/db" -l "$data/log")
stop() {
    "${control[@]}" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$data"
}
trap stop EXIT

# Not a port that the system gives to outgoing connections: PostgreSQL is stopped and started again.
port=$(python3 - <<'END'
import contextlib, random, socket
while True:
    port = random.randrange(20000, 32000)
    with contextlib.suppress(OSError), socket.socket() as s:
        s.bind(("127.0.0.1", port))
        print(port)
        break
END
)
cd "$data"
"${as_owner[@]}" "$bin/initdb" -D "$data/db" -U portcullis --auth=trust --no-sync >/dev/null
printf '%s\n' "port = $port" "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$data'" \
    "${postgres_options[@]}" >>"$data/db/postgresql.conf"
"${control[@]}" start >/dev/null
cd - >/dev/null
