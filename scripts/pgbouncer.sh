# Starts PgBouncer before the PostgreSQL at $port for the script that reads this, once with each way to pool and
# otherwise as it is installed. Installs it with apt when it is missing. Gives $session_port and
# $transaction_port; end_pgbouncer stops it.

pgbouncer=$(command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null || true)
if [ -z "$pgbouncer" ]; then
    export DEBIAN_FRONTEND=noninteractive
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null
    pgbouncer=$(command -v pgbouncer || echo /usr/sbin/pgbouncer)
fi

pools=$(mktemp -d)
[ "$(id -u)" -ne 0 ] || chown postgres "$pools"
echo '"portcullis" ""' >"$pools/users"
chmod -R a+rX "$pools"
bouncers=()

# Pools in this way, at this port.
bounce() {
    printf '%s\n' '[databases]' "* = host=127.0.0.1 port=$port" '[pgbouncer]' 'listen_addr = 127.0.0.1' \
        "listen_port = $2" 'unix_socket_dir =' 'auth_type = trust' "auth_file = $pools/users" \
        "pool_mode = $1" >"$pools/$1.ini"
    chmod a+r "$pools/$1.ini"
    "${as_owner[@]}" "$pgbouncer" -q "$pools/$1.ini" >"$pools/$1.log" 2>&1 &
    bouncers+=("$!")
}

end_pgbouncer() {
    local pid
    for pid in "${bouncers[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$pools"
}

session_port=$((port + 1))
transaction_port=$((port + 2))
bounce session "$session_port"
bounce transaction "$transaction_port"
for at in "$session_port" "$transaction_port"; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$at") 2>/dev/null; do sleep 0.1; done
done
