"""What is measured, part by part."""

import contextlib
import os
import re
import signal
import sqlite3
import time

from comparison import servers
from comparison.machine import WORK
from comparison.results import files

# Callers at once: few, and many that share commits.
FEW, MANY = 16, [64, 256]
METADATA_CALLERS, HOP_CALLERS = 64, [1, 32]
DURABLE = ["registrations", "flows", "refreshes"]
STEPS = ["metadata", *DURABLE, "calls"]
FASTMCP_BASE = f"http://127.0.0.1:{servers.FASTMCP}"
MOST_STREAMS, FASTMCP_STREAMS = 20_000, 300
# In each direction: a timer of the relay is late by half a millisecond in the mean.
NETWORK_DELAY_MS = 2
POSTGRES_CALLERS = {"registrations": 64, "flows": 64, "refreshes": 64, "calls": 32}


def callers_of(step):
    return METADATA_CALLERS if step == "metadata" else FEW


def portcullis(bench):
    who = "Portcullis"
    with servers.portcullis(bench.cores, servers.fresh()):
        pass  # the first start creates the database
    with servers.portcullis(bench.cores, WORK / "portcullis") as server:
        bench.idle(who, server)
        for step in ["metadata", *DURABLE]:
            bench.load(who, step, servers.PUBLIC, callers_of(step), servers=[server])
        for callers in MANY:
            for step in DURABLE:
                label = f"{step} at {callers}"
                bench.load(who, step, servers.PUBLIC, callers, label=label, servers=[server])
        bench.load(who, "calls", servers.PUBLIC, FEW, servers=[server])


def fastmcp(bench):
    workers = len(bench.cores.server)
    with servers.redis(bench.cores) as redis:
        for who, store, workers, caches_tls in [
            ("FastMCP, file store", "file", 1, False),
            ("FastMCP, Redis", "redis", 1, False),
            ("FastMCP, best", "redis", workers, True),
        ]:
            with servers.fastmcp(bench.cores, store, workers, caches_tls) as server:
                bench.idle(who, server)
                for step in STEPS:
                    database = {"database": redis.pid, "database_on": "load"} if store == "redis" else {}
                    load = {"servers": [server], "width": workers, **database}
                    bench.load(who, step, FASTMCP_BASE, callers_of(step), **load)


def oidc_provider(bench):
    who, base = "oidc-provider", f"http://127.0.0.1:{servers.OIDC_PROVIDER}"
    more = ["--metadata", "/.well-known/openid-configuration", "--no-resource", "--scope", "openid offline_access"]
    with servers.oidc_provider(bench.cores) as server:
        bench.idle(who, server)
        for step in ["metadata", *DURABLE]:
            bench.load(who, step, base, callers_of(step), *more, servers=[server], width=1)


def hydra(bench):
    who, base = "Ory Hydra", f"http://127.0.0.1:{servers.HYDRA}"
    more = ["--metadata", "/.well-known/openid-configuration", "--no-resource", "--scope", "offline_access"]
    if not servers.HYDRA_BINARY.exists():
        print("  needs Go, which is not there", flush=True)
        return
    postgres = servers.Postgres(bench.cores)
    with servers.hydra(bench.cores, postgres) as server:
        bench.idle(who, server)
        for step in ["metadata", *DURABLE]:
            bench.load(who, step, base, callers_of(step), *more, servers=[server], database=postgres.pid)


def one_core(bench):
    """The flows of the main part again, where that has two cores for the server."""
    cores = bench.cores.with_one_for_the_server()
    if cores == bench.cores:
        return
    with servers.portcullis(cores, servers.fresh()) as server:
        for callers in MANY:
            load = {"label": f"flows at {callers}", "servers": [server], "cores": cores}
            bench.load("Portcullis", "flows", servers.PUBLIC, callers, **load)
    with servers.redis(cores) as redis, servers.fastmcp(cores, "redis", 1) as server:
        load = {"servers": [server], "database": redis.pid, "database_on": "load", "cores": cores}
        bench.load("FastMCP, Redis", "flows", FASTMCP_BASE, FEW, **load)


def gateway(bench):
    """In turns: the plain hop of nginx and the authorised one of Portcullis."""
    with servers.portcullis(bench.cores, servers.fresh()) as own, servers.nginx(bench.cores) as nginx:
        for callers in HOP_CALLERS:
            label = f"hop at {callers}"
            for who, base, started, more in [
                ("direct", f"http://{servers.BACKEND}", [], ["--no-token"]),
                ("nginx", f"http://127.0.0.1:{servers.NGINX}", [nginx], ["--no-token"]),
                ("Portcullis", servers.PUBLIC, [own], []),
            ]:
                bench.load(who, "calls", base, callers, *more, label=label, servers=started)


def streams(bench):
    """Two files for each stream in a proxy, one in the load tool."""
    most = min(MOST_STREAMS, (files() - 500) // 2)
    with servers.portcullis(bench.cores, servers.fresh()) as server:
        bench.load("Portcullis", "streams", servers.PUBLIC, most, "--pid", str(server.pid))
    with servers.nginx(bench.cores) as server:
        base = f"http://127.0.0.1:{servers.NGINX}"
        bench.load("nginx", "streams", base, most, "--no-token", "--pid", str(server.pid))
    with servers.redis(bench.cores), servers.fastmcp(bench.cores, "redis", 1, has_sessions=True) as server:
        more = ["--sessions", "--pid", str(server.pid)]
        bench.load("FastMCP, Redis", "streams", FASTMCP_BASE, FASTMCP_STREAMS, *more)


def million(bench):
    """The same steps with a thousand and with a million clients and grants in the database."""
    for rows in [1_000, 1_000_000]:
        folder = servers.fresh()
        with servers.portcullis(bench.cores, folder):
            pass
        seed(folder / "portcullis.db", rows)
        with servers.portcullis(bench.cores, folder) as server:
            for step in DURABLE:
                bench.load(f"{rows:,} rows", step, servers.PUBLIC, FEW, servers=[server])


def seed(path, rows):
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -400000")
    now = int(time.time())
    values = {"rows": rows, "now": now, "later": now + 90 * 86400}
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)"
    with database:
        for table, columns, each in [
            (
                "clients",
                "id, identity, metadata, issued_at, last_registered_at, last_used_at",
                """'client_' || i, printf('%032x', i),
                   '{"redirect_uris":["http://127.0.0.1:1/c"]}' || printf('%250s', ''), :now, :now, :now""",
            ),
            (
                "upstream_sessions",
                "id, upstream, issuer, subject, sid, state, person, tokens, version, last_ok_at, facts_read_at,"
                " created_at",
                """printf('%032x', i), 'oidc', 'x', printf('%032x', i), '-', 'active', printf('%200s', 'x'),
                   printf('%600s', 'x'), 1, :now, 0, :now""",
            ),
            (
                "grants",
                "id, client_id, session_id, subject, resource, consented_scopes, created_at, expires_at,"
                " last_used_at",
                """printf('%032x', i), 'client_' || i, printf('%032x', i), printf('%032x', i),
                   'http://127.0.0.1:9000/mcp', 'read', :now, :later, :now""",
            ),
            (
                "refresh_tokens",
                "id, token_hash, grant_id, issued_at, expires_at, replays",
                "printf('%032x', i), printf('%43s', 'x'), printf('%032x', i), :now, :later, 0",
            ),
        ]:
            database.execute(f"INSERT INTO {table} ({columns}) {numbers} SELECT {each} FROM n", values)
        database.execute("UPDATE counters SET value = (SELECT COUNT(*) FROM clients) WHERE name = 'clients'")
    database.close()


def postgres(bench):
    """One to three replicas on one PostgreSQL, and SQLite, on the same cores."""
    database = servers.Postgres(bench.cores)
    with servers.portcullis(bench.cores, servers.fresh()) as server:
        for step, callers in POSTGRES_CALLERS.items():
            bench.load("SQLite", step, servers.PUBLIC, callers, servers=[server])
    for number in range(1, len(servers.REPLICAS) + 1):
        with replicas(bench, number, database, database.url()) as load:
            for step in POSTGRES_CALLERS:
                with database.waits() as waits:
                    load(f"replicas: {number}", step)
                bench.notes.note(f"replicas: {number}", step, waits=waits)
    if not servers.has_relay():
        print("  the load tool has no relay: neither round trips nor a network are measured", flush=True)
        return
    round_trips(bench, database)
    over_a_network(bench, database)


@contextlib.contextmanager
def replicas(bench, number, database, url, helpers=()):
    """Replicas on a fresh database, and a function that loads all of them."""
    database.fresh_database()
    bases = [f"http://127.0.0.1:{port}" for port in servers.REPLICAS[:number]]
    with servers.replicas(bench.cores, number, url) as processes:
        watched = {"servers": processes, "database": database.pid, "helpers": helpers}

        def load(who, step, **more):
            return bench.load(who, step, bases, POSTGRES_CALLERS[step], **watched, **more)

        yield load


def round_trips(bench, database):
    """Counted in a short and in a longer run, so that what comes before the first operation cancels out."""
    with servers.relay(bench.cores, database, 0) as relay:
        with replicas(bench, 1, database, database.url(servers.RELAY), [relay]) as load:
            for step in POSTGRES_CALLERS:
                counted = []
                for seconds in [1, 3]:
                    before = counted_by(relay)
                    line = load("relay", step, seconds=seconds, label=f"{step}, {seconds} s")
                    counted.append((counted_by(relay) - before, line["operations"] if line else 0))
                (few_trips, few), (many_trips, many) = counted
                if many > few:
                    bench.notes.note("relay", step, round_trips=(many_trips - few_trips) / (many - few))


def counted_by(relay):
    lines = len(relay.log.read_text().splitlines())
    os.kill(relay.pid, signal.SIGUSR1)
    for _ in range(500):
        now = relay.log.read_text().splitlines()
        if len(now) > lines:
            return int(re.search(r'"round_trips":(\d+)', now[-1]).group(1))
        time.sleep(0.01)
    raise SystemExit("the relay does not say what it counted")


def over_a_network(bench, database):
    with servers.relay(bench.cores, database, NETWORK_DELAY_MS) as relay:
        bench.notes.note("network", "relay", round_trip_ms=database.round_trip_ms(servers.RELAY))
        for number in [1, 2]:
            with replicas(bench, number, database, database.url(servers.RELAY), [relay]) as load:
                for step in POSTGRES_CALLERS:
                    load(f"network, replicas: {number}", step)


# In this order. The first ones are repeated in each round; the others take long, and are measured once.
REPEATED = {
    "portcullis": portcullis,
    "fastmcp": fastmcp,
    "oidc-provider": oidc_provider,
    "hydra": hydra,
    "gateway": gateway,
    "one-core": one_core,
}
ONCE = {"streams": streams, "million": million, "postgres": postgres}
