"""Runs the servers one after another and writes docs/dev/benchmarks.md; started by compare.sh."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time

WORK = pathlib.Path(sys.argv[1])
ROUNDS, SECONDS = int(sys.argv[2]), sys.argv[3]
ROOT = pathlib.Path(__file__).parent.parent
LOAD = str(WORK / "load/release/portcullis-load")
SERVER, AROUND = ["taskset", "-c", "0,1"], ["taskset", "-c", "2,3"]
MANY = [64, 256]  # callers who share commits
ISSUER, BACKEND, REDIS = "http://127.0.0.1:9100", "127.0.0.1:9200", 6399
FILES = int(subprocess.run(["bash", "-c", "ulimit -n"], capture_output=True, text=True).stdout)

PORTCULLIS = f"""
public_url   = "http://127.0.0.1:9000"
listen       = "127.0.0.1:9000"
database_url = "sqlite://{WORK}/portcullis/portcullis.db"
[upstream]
provider      = "oidc"
issuer        = "{ISSUER}"
client_id     = "load"
client_secret = "load-secret-load-secret"
[[resource]]
path   = "/mcp"
target = "http://{BACKEND}/mcp"
scopes = ["read", "write"]
[limits]
request_rates = false
clients = 10000000
pending_logins = 1000000
connections = 100000
database_size = 100000000000
requests_per_person = 100000
streams_per_person = 100000
"""
NGINX = """
daemon off;
worker_processes 2;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fastcgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    scgi_temp_path {work}/nginx-scgi;
    upstream backend {{ server {backend}; keepalive 256; }}
    server {{
        listen 127.0.0.1:9002;
        keepalive_requests 100000000;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Started:
    """A process, and how long it took to its first answer."""

    def __init__(self, command, port, env=None, log="server.log", cwd=None):
        out = open(WORK / log, "w")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True
        )
        request = f"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(request.encode())
                if s.recv(1):
                    break
            if self.process.poll() is not None or time.monotonic() - begun > 60:
                raise SystemExit(f"{command} did not start: {(WORK / log).read_text()[-2000:]}")
            time.sleep(0.001)
        self.start_ms = (time.monotonic() - begun) * 1000

    @property
    def pid(self):
        return self.process.pid

    def memory_kib(self):
        """Of the process and its children."""
        group = subprocess.run(["ps", "-o", "rss=", "-g", str(self.pid)], capture_output=True, text=True)
        return sum(int(line) for line in group.stdout.split())

    def stop(self):
        os.killpg(self.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(*args, **kwargs):
    started = Started(*args, **kwargs)
    try:
        yield started
    finally:
        started.stop()


results = {}


def note(who, what, **values):
    for name, value in values.items():
        results.setdefault((who, what, name), []).append(value)


def load(who, what, base, callers, *more, label=None):
    command = [*AROUND, LOAD, "run", what, "--base", base, "--callers", str(callers), "--seconds", SECONDS, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"  {who} {what}: {done.stderr.strip()[:300]}", flush=True)
        return
    line = json.loads(done.stdout)
    if line.get("first_failure"):
        print(f"  {who} {what}: {line.get('failures')} failures, {line['first_failure'][:300]}", flush=True)
    print(f"  {who} {label or what}: {line}", flush=True)
    wanted = {"per_second", "p50_us", "p99_us", "open", "kib_per_stream", "failures"}
    note(who, label or what, **{name: value for name, value in line.items() if name in wanted and value is not None})


def fresh():
    folder = WORK / "portcullis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "portcullis.toml").write_text(PORTCULLIS)
    return folder


def portcullis(folder):
    binary = ROOT / "target/release/portcullis"
    command = [*SERVER, str(binary), "serve", "--config", str(folder / "portcullis.toml")]
    return running(command, 9000, log="portcullis.log")


def measure_portcullis(round_):
    who, base = "Portcullis", "http://127.0.0.1:9000"
    with portcullis(fresh()):
        pass  # makes the database: what a first start does besides
    with portcullis(WORK / "portcullis") as server:
        time.sleep(1)
        note(who, "idle", start_ms=server.start_ms, memory_kib=server.memory_kib())
        for what, callers in [("metadata", 64), ("registrations", 16), ("flows", 16), ("refreshes", 16)]:
            load(who, what, base, callers)
        for callers in MANY:
            for what in ["registrations", "flows", "refreshes"]:
                load(who, what, base, callers, label=f"{what} at {callers}")
        load(who, "calls", base, 16)
    if round_ == 0:
        measure_streams()


def measure_streams():
    """Two files for each stream in the server, one in the load tool."""
    with portcullis(fresh()) as server:
        most = min(20_000, (FILES - 500) // 2)
        load("Portcullis", "streams", "http://127.0.0.1:9000", most, "--pid", str(server.pid))


def measure_hop():
    """In pairs: the plain hop of nginx and the authorised one of Portcullis, in turns."""
    config = WORK / "nginx.conf"
    config.write_text(NGINX.format(work=WORK, backend=BACKEND))
    nginx, base = [*SERVER, "nginx", "-p", str(WORK), "-c", str(config)], "http://127.0.0.1:9000"
    with portcullis(fresh()), running(nginx, 9002, log="nginx-out.log"):
        for callers in [1, 32]:
            label = f"hop at {callers}"
            load("direct", "calls", f"http://{BACKEND}", callers, "--no-token", label=label)
            load("nginx", "calls", "http://127.0.0.1:9002", callers, "--no-token", label=label)
            load("Portcullis", "calls", base, callers, label=label)


def measure_million():
    """The same steps with a thousand and with a million clients and grants in the database."""
    base = "http://127.0.0.1:9000"
    for rows in [1_000, 1_000_000]:
        folder = fresh()
        with portcullis(folder):
            pass
        seed(folder / "portcullis.db", rows)
        with portcullis(folder):
            for what in ["registrations", "flows", "refreshes"]:
                load(f"{rows:,} rows", what, base, 16, label=f"{what} with rows")


def seed(path, rows):
    now = int(time.time())
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    later = now + 90 * 86400
    with database:
        ids = [f"{i:032x}" for i in range(rows)]
        database.executemany(
            "INSERT INTO clients VALUES (?, ?, NULL, ?, ?, ?, ?)"
            if columns(database, "clients") == 7
            else "INSERT INTO clients (id, identity, metadata, issued_at, last_registered_at, last_used_at) VALUES (?, ?, ?, ?, ?, ?)",
            ((f"client_{i}", i, '{"redirect_uris":["http://127.0.0.1:1/c"]}' + " " * 250, now, now, now) for i in ids),
        )
        database.executemany(
            "INSERT INTO upstream_sessions (id, upstream, issuer, subject, sid, state, person, tokens, version, last_ok_at, facts_read_at, created_at)"
            " VALUES (?, 'oidc', 'x', ?, '-', 'active', ?, ?, 1, ?, 0, ?)",
            ((i, i, "x" * 200, "x" * 600, now, now) for i in ids),
        )
        database.executemany(
            "INSERT INTO grants (id, client_id, session_id, subject, resource, consented_scopes, created_at, expires_at, last_used_at)"
            " VALUES (?, ?, ?, ?, 'http://127.0.0.1:9000/mcp', 'read', ?, ?, ?)",
            ((i, f"client_{i}", i, i, now, later, now) for i in ids),
        )
        database.executemany(
            "INSERT INTO refresh_tokens (id, token_hash, grant_id, issued_at, expires_at, replays) VALUES (?, ?, ?, ?, ?, 0)",
            ((i, "x" * 43, i, now, later) for i in ids),
        )
        database.execute("UPDATE counters SET value = (SELECT COUNT(*) FROM clients) WHERE name = 'clients'")
    database.close()


def columns(database, table):
    return len(database.execute(f"PRAGMA table_info({table})").fetchall())


FASTMCP = [
    # name, store, workers, cached TLS, scenarios
    ("FastMCP, file store", "file", 1, "", ["metadata", "registrations", "flows", "refreshes", "calls"]),
    ("FastMCP, Redis", "redis", 1, "", ["metadata", "registrations", "flows", "refreshes", "calls"]),
    ("FastMCP, best", "redis", 2, "1", ["metadata", "registrations", "flows", "refreshes", "calls"]),
]


def measure_fastmcp():
    folder = WORK / "redis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    redis = ["redis-server", "--port", str(REDIS), "--save", "", "--appendonly", "yes", "--dir", str(folder)]
    keeper = subprocess.Popen([*AROUND, *redis], stdout=subprocess.DEVNULL)
    try:
        for who, store, workers, tls, scenarios in FASTMCP:
            shutil.rmtree(WORK / "fastmcp", ignore_errors=True)
            env = {
                "PEER_PORT": "9001", "PEER_STORE": store, "PEER_WORKERS": str(workers), "PEER_CACHED_TLS": tls,
                "PEER_REDIS": f"redis://127.0.0.1:{REDIS}/0", "PEER_ISSUER": ISSUER,
                "FASTMCP_HOME": str(WORK / "fastmcp"),
            }
            command = [*SERVER, sys.executable, "fastmcp_server.py"]
            with running(command, 9001, env, "fastmcp.log", ROOT / "benches/peers") as server:
                time.sleep(1)
                note(who, "idle", start_ms=server.start_ms, memory_kib=server.memory_kib())
                for what in scenarios:
                    load(who, what, "http://127.0.0.1:9001", 64 if what == "metadata" else 16)
    finally:
        keeper.terminate()
        keeper.wait()


def measure_oidc_provider():
    who, base = "oidc-provider", "http://127.0.0.1:9003"
    command = [*SERVER, "node", "oidc_provider_server.mjs"]
    with running(command, 9003, {"PEER_PORT": "9003"}, "oidc-provider.log", ROOT / "benches/peers") as server:
        time.sleep(1)
        note(who, "idle", start_ms=server.start_ms, memory_kib=server.memory_kib())
        more = ["--metadata", "/.well-known/openid-configuration", "--no-resource", "--scope", "openid offline_access"]
        for what in ["metadata", "registrations", "flows", "refreshes"]:
            load(who, what, base, 64 if what == "metadata" else 16, *more)


def median(who, what, name="per_second"):
    values = results.get((who, what, name))
    return statistics.median(values) if values else None


def number(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(a, b):
    return "–" if not a or not b else (f"{a / b:,.0f}" if a / b >= 10 else f"{a / b:.2f}") + " ×"


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def report():
    def p(what, name="per_second"):
        return median("Portcullis", what, name)

    redis, best, files = "FastMCP, Redis", "FastMCP, best", "FastMCP, file store"
    rows = []

    def aim(text, wanted, measured, met):
        rows.append(f"| {text} | {wanted} | {measured} | {'reached' if met else 'missed' if met is not None else '–'} |")

    def at_least(text, factor, a, b):
        aim(text, f"≥ {factor} ×", ratio(a, b), a >= factor * b if a and b else None)

    def at_its_best(what):
        return max(filter(None, (p(f"{what} at {callers}") for callers in MANY)), default=None)

    flows, refreshes = at_its_best("flows"), at_its_best("refreshes")
    at_least("whole flows/s, compared with FastMCP with Redis", 100, flows, median(redis, "flows"))
    at_least("whole flows/s, compared with FastMCP at its best", 20, flows, median(best, "flows"))
    at_least("refreshes/s, compared with FastMCP with Redis", 200, refreshes, median(redis, "refreshes"))
    at_least("refreshes/s, compared with FastMCP at its best", 30, refreshes, median(best, "refreshes"))
    at_least("durable registrations/s, compared with FastMCP's durable default", 20, at_its_best("registrations"), median(files, "registrations"))
    at_least("authorised MCP calls/s through the gateway, compared with nginx's plain hop", 0.7, p("hop at 32"), median("nginx", "hop at 32"))
    direct, own, plain = (median(who, "hop at 1", "p50_us") for who in ["direct", "Portcullis", "nginx"])
    if direct and own and plain:
        aim("added median latency of the hop, one caller, compared with nginx's", "≤ 1.5 ×",
            f"{(own - direct) / max(plain - direct, 1):.2f} × ({own - direct:.0f} µs and {plain - direct:.0f} µs)",
            own - direct <= 1.5 * (plain - direct))
    idle, theirs = p("idle", "memory_kib"), median(redis, "idle", "memory_kib")
    if idle and theirs:
        aim("idle memory, compared with FastMCP's", "≤ 1/6", f"1/{theirs / idle:.1f}", idle * 6 <= theirs)
    each, opened = p("streams", "kib_per_stream"), p("streams", "open")
    if each:
        aim("memory per idle open event stream", "≤ 20 KB", f"{each:.1f} KiB, {opened:,.0f} open", each * 1.024 <= 20)
        aim("open event streams", "20,000", f"{opened:,.0f}", opened >= 20_000)
    start = p("idle", "start_ms")
    aim("start to first answer", "≤ 50 ms", f"{start:.0f} ms", start <= 50)
    slowest = []
    for what in ["registrations", "flows", "refreshes"]:
        few, many = (median(f"{n} rows", f"{what} with rows") for n in ["1,000", "1,000,000"])
        if few and many:
            slowest.append((few / many, what))
    if slowest:
        worst, what = max(slowest)
        aim("a million clients and grants, compared with a thousand: time of the slowest operation", "≤ 2 ×", f"{worst:.2f} × ({what})", worst <= 2)

    table = []
    peers = ["Portcullis", redis, best, files, "oidc-provider"]
    for what in ["metadata", "registrations", "flows", "refreshes", "calls"]:
        table.append(f"| {what}/s | " + " | ".join(number(median(who, what)) for who in peers) + " |")
    for name, text in [("start_ms", "start, ms"), ("memory_kib", "idle memory, KiB")]:
        table.append(f"| {text} | " + " | ".join(number(median(who, "idle", name)) for who in peers) + " |")
    wide = [
        f"| {what}/s | {callers} | {number(p(f'{what} at {callers}'))} | {number((p(f'{what} at {callers}', 'p50_us') or 0) / 1000)} | {number((p(f'{what} at {callers}', 'p99_us') or 0) / 1000)} |"
        for what in ["registrations", "flows", "refreshes"]
        for callers in MANY
    ]
    hops = [
        f"| {who} | " + " | ".join(f"{number(median(who, f'hop at {n}'))} | {number(median(who, f'hop at {n}', 'p50_us'))}" for n in [1, 32]) + " |"
        for who in ["direct", "nginx", "Portcullis"]
    ]
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    failures = sum(sum(v) for (_, _, name), v in results.items() if name == "failures")
    text = (ROOT / "benches/benchmarks.template.md").read_text()
    values = {
        "AIMS": "\n".join(rows), "TABLE": "\n".join(table), "WIDE": "\n".join(wide), "HOPS": "\n".join(hops),
        "DATE": datetime.date.today().isoformat(), "ROUNDS": str(ROUNDS), "SECONDS": SECONDS,
        "CPU": f"{cpu}, {os.cpu_count()} cores", "LOAD": f"{os.getloadavg()[2]:.1f}", "FILES": f"{FILES:,}",
        "RUSTC": version("rustc", "--version"), "NGINX": version("nginx", "-v"),
        "REDIS": version("redis-server", "--version"), "NODE": version("node", "--version"),
        "PYTHON": version(sys.executable, "--version"), "FAILURES": f"{failures:,.0f}",
        "COMMIT": version("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "PEERS": ", ".join((ROOT / "benches/peers/requirements.txt").read_text().split()),
    }
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    (ROOT / "docs/dev/benchmarks.md").write_text(text)


around = [*AROUND, LOAD, "around", "--backend", BACKEND]
with running(around, 9100, log="around.log"):
    for round_ in range(ROUNDS):
        print(f"round {round_ + 1} of {ROUNDS}", flush=True)
        measure_portcullis(round_)
        measure_fastmcp()
        measure_oidc_provider()
        measure_hop()
    measure_million()
report()
