"""The servers that are compared: configurations, and how each is started."""

import contextlib
import os
import shutil
import subprocess
import sys

from comparison.machine import LOAD, PORTCULLIS, ROOT, WORK, descendants, pinned, running
from comparison.results import files

PUBLIC, ISSUER, BACKEND = "http://127.0.0.1:9000", "http://127.0.0.1:9100", "127.0.0.1:9200"
REPLICAS = [9000, 9010, 9020]
FASTMCP, NGINX, OIDC_PROVIDER, HYDRA, HYDRA_ADMIN, RELAY, REDIS = 9001, 9002, 9003, 9004, 9005, 9250, 6399
PEERS, HYDRA_BINARY = ROOT / "benches/peers", WORK / "hydra/hydra"

PORTCULLIS_TOML = """
public_url   = "{public}"
listen       = "127.0.0.1:{port}"
database_url = "{database}"
{more}
[upstream]
provider      = "oidc"
issuer        = "{issuer}"
client_id     = "load"
client_secret = "load-secret-load-secret"
[[resource]]
path   = "/mcp"
target = "http://{backend}/mcp"
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
NGINX_CONF = """
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fastcgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    scgi_temp_path {work}/nginx-scgi;
    upstream backend {{ server {backend}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 100000000;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""
HYDRA_YML = """
urls:
  self: {{ issuer: "http://127.0.0.1:{public}" }}
  login: {issuer}/hydra/login
  consent: {issuer}/hydra/consent
serve:
  public: {{ host: 127.0.0.1, port: {public} }}
  admin: {{ host: 127.0.0.1, port: {admin} }}
secrets:
  system: ["a key that is only good for measuring"]
oidc:
  dynamic_client_registration: {{ enabled: true, default_scope: [openid, offline_access] }}
webfinger: {{ oidc_discovery: {{ client_registration_url: "http://127.0.0.1:{public}/oauth2/register" }} }}
log: {{ level: error }}
sqa: {{ opt_out: true }}
dev: true
"""


def fresh():
    """An empty folder for a Portcullis with SQLite."""
    folder = WORK / "portcullis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_configuration(folder, REPLICAS[0], f"sqlite://{folder}/portcullis.db")
    return folder


def write_configuration(folder, port, database, more=""):
    text = PORTCULLIS_TOML.format(
        public=PUBLIC, port=port, database=database, more=more, issuer=ISSUER, backend=BACKEND
    )
    (folder / "portcullis.toml").write_text(text)


def portcullis(cores, folder, port=REPLICAS[0]):
    command = [PORTCULLIS, "serve", "--config", str(folder / "portcullis.toml")]
    return running(cores.server, command, port, log=f"portcullis-{port}.log")


@contextlib.contextmanager
def replicas(cores, number, database):
    """Portcullis a few times, with one database and one public URL."""
    with contextlib.ExitStack() as stack:
        started = []
        for port in REPLICAS[:number]:
            folder = WORK / f"replica-{port}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            key = 'secret_key = "a key that is only good for measuring, 0123456789"'
            write_configuration(folder, port, database, key)
            started.append(stack.enter_context(portcullis(cores, folder, port)))
        yield started


def nginx(cores):
    workers = len(cores.server)
    config = WORK / "nginx.conf"
    # More connections than there can be: with 15/16 of them in use, it closes new ones that are idle.
    config.write_text(
        NGINX_CONF.format(work=WORK, backend=BACKEND, workers=workers, files=files(), connections=2 * files(), port=NGINX)
    )
    command = ["nginx", "-p", str(WORK), "-c", str(config)]
    return running(cores.server, command, NGINX, log="nginx-out.log")


@contextlib.contextmanager
def redis(cores):
    """With an append-only file, synced once a second. Runs on the cores of the load side."""
    folder = WORK / "redis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = ["redis-server", "--port", str(REDIS), "--save", "", "--appendonly", "yes", "--dir", str(folder)]
    with running(cores.load, command, REDIS, log="redis.log", speaks_http=False) as started:
        yield started


def fastmcp(cores, store, workers, caches_tls=False, has_sessions=False):
    home = WORK / "fastmcp"
    shutil.rmtree(home, ignore_errors=True)
    env = {
        "PEER_PORT": str(FASTMCP),
        "PEER_STORE": store,
        "PEER_WORKERS": str(workers),
        "PEER_CACHED_TLS": "1" if caches_tls else "",
        "PEER_SESSIONS": "1" if has_sessions else "",
        "PEER_REDIS": f"redis://127.0.0.1:{REDIS}/0",
        "PEER_ISSUER": ISSUER,
        "FASTMCP_HOME": str(home),
    }
    return running(cores.server, [sys.executable, "fastmcp_server.py"], FASTMCP, env, "fastmcp.log", PEERS)


def oidc_provider(cores):
    env = {"PEER_PORT": str(OIDC_PROVIDER)}
    return running(cores.server, ["node", "oidc_provider_server.mjs"], OIDC_PROVIDER, env, "oidc-provider.log", PEERS)


@contextlib.contextmanager
def hydra(cores, postgres):
    binary, config = str(HYDRA_BINARY), WORK / "hydra.yml"
    config.write_text(HYDRA_YML.format(public=HYDRA, admin=HYDRA_ADMIN, issuer=ISSUER))
    postgres.fresh_database("hydra")
    env = {"DSN": f"postgres://portcullis@127.0.0.1:{postgres.port}/hydra?sslmode=disable&max_conns=16"}
    command = [binary, "migrate", "sql", "up", "--read-from-env", "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    if done.returncode:
        raise SystemExit(f"{command}: {(done.stdout + done.stderr)[-2000:]}")
    command = [binary, "serve", "all", "--dev", "--config", str(config)]
    with running(cores.server, command, HYDRA, env, "hydra.log"):
        pass  # the first start creates keys
    with running(cores.server, command, HYDRA, env, "hydra.log") as server:
        yield server


def around(cores):
    """The identity provider and the MCP server."""
    command = [LOAD, "around", "--provider", ISSUER.removeprefix("http://"), "--backend", BACKEND]
    command += ["--hydra", f"http://127.0.0.1:{HYDRA_ADMIN}"]
    return running(cores.load, command, 9100, log="around.log")


def has_relay():
    return subprocess.run([LOAD, "relay", "--help"], capture_output=True).returncode == 0


def relay(cores, postgres, delay_ms):
    """Counts round trips to PostgreSQL, and delays what it passes on, in each direction."""
    command = [LOAD, "relay", "--listen", f"127.0.0.1:{RELAY}", "--to", f"127.0.0.1:{postgres.port}"]
    return running(cores.load, [*command, "--delay-ms", str(delay_ms)], RELAY, log="relay.log", speaks_http=False)


class Postgres:
    """The PostgreSQL that compare.sh started, on the cores of the servers."""

    def __init__(self, cores):
        self.port, self.pid = int(os.environ["COMPARE_POSTGRES_PORT"]), int(os.environ["COMPARE_POSTGRES_PID"])
        self.psql = [os.environ["COMPARE_POSTGRES_BIN"] + "/psql", "-XqAt", "-h", "127.0.0.1", "-U", "portcullis"]
        self.cores = cores
        for process in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process, cores.server)

    def url(self, port=None):
        return f"postgres://portcullis@127.0.0.1:{port or self.port}/portcullis"

    def run(self, *statements, port=None):
        command = [*self.psql, "-p", str(port or self.port), "-d", "postgres"]
        for statement in statements:
            command += ["-c", statement]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def fresh_database(self, name="portcullis"):
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}", "CHECKPOINT")

    def round_trip_ms(self, port):
        """Median time of an empty statement."""
        command = [*self.psql, "-p", str(port), "-d", "postgres"]
        script = "\\timing on\n" + "SELECT;\n" * 20
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
        times = sorted(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("Time:"))
        return times[len(times) // 2]

    @contextlib.contextmanager
    def waits(self, database="portcullis"):
        """Ten times a second: what the sessions that have something to do wait for. Yields a dict that is full at
        the end."""
        query = (
            "SELECT COALESCE(wait_event_type || ': ' || wait_event, 'running'), count(*) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND state <> 'idle' GROUP BY 1 \\watch 0.1\n"
        )
        counts, log = {}, WORK / "waits.log"
        with log.open("w") as out:
            command = [*pinned(self.cores.load), *self.psql, "-p", str(self.port), "-d", "postgres"]
            sampler = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL, text=True)
            sampler.stdin.write(query)
            sampler.stdin.flush()
            try:
                yield counts
            finally:
                sampler.terminate()
                sampler.wait()
        for line in log.read_text().splitlines():
            event, _, number = line.rpartition("|")
            if event and number.isdigit():
                counts[event] = counts.get(event, 0) + int(number)
