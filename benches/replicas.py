#!/usr/bin/env python3
"""Measures Portcullis on PostgreSQL: rates, processor time on both sides, round trips and waits.

Starts a PostgreSQL of its own (fsync on), the load tool's `around`, and replicas on it, each at its own port and
with a load of its own. Prints one line of JSON for each scenario and number of replicas:

  per_second       of all replicas together
  server_us        processor time of a replica for one operation
  database_us      processor time of all processes of PostgreSQL for one operation
  round_trips      between a replica and PostgreSQL for one operation, in a run of its own behind the relay
  waits            what sessions of PostgreSQL waited for, in percent of the busy ones, in a run of its own

Usage: benches/replicas.py --server BINARY --load BINARY [--replicas 1,2,3] [--scenarios refreshes,flows]
       [--seconds 5] [--callers 32] [--delay-ms 0] [--server-core N] [--other-core N] [--sqlite]
       [--statements] [--no-counts]
--delay-ms puts the relay between, with this delay in each direction. --statements shows how often each statement is
executed for one operation.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from processes import pinned, processor_seconds, wait_for_port

parser = argparse.ArgumentParser()
parser.add_argument("--server", required=True)
parser.add_argument("--load", required=True)
parser.add_argument("--replicas", default="1")
parser.add_argument("--scenarios", default="registrations,flows,refreshes,calls")
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--callers", type=int, default=32)
parser.add_argument("--delay-ms", type=float, default=0)
parser.add_argument("--server-core")
parser.add_argument("--other-core")
parser.add_argument("--sqlite", action="store_true")
parser.add_argument("--statements", action="store_true")
parser.add_argument("--no-counts", action="store_true")
parser.add_argument("--connections", type=int, default=16)
parser.add_argument("--base-port", type=int, default=int(os.environ.get("BASE", "9800")))
parser.add_argument("--postgres-option", action="append", default=[])
options = parser.parse_args()

BASE = options.base_port
POSTGRES, RELAY, PROVIDER, BACKEND = BASE + 90, BASE + 91, BASE + 50, BASE + 51
work = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_FOLDER")))
os.chmod(work, 0o755)


@contextlib.contextmanager
def running(command, port, log, **more):
    process = subprocess.Popen(command, stdout=open(work / log, "w"), stderr=subprocess.STDOUT, **more)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        process.wait()


class Postgres:
    def __enter__(self):
        binaries = subprocess.run(["bash", "-c", "ls -d /usr/lib/postgresql/*/bin | tail -1"], capture_output=True, text=True)
        self.bin = pathlib.Path(binaries.stdout.strip())
        self.data = work / "postgres"
        self.owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.owner:
            shutil.chown(work, "postgres")
        subprocess.run(
            [*self.owner, self.bin / "initdb", "-D", self.data, "-U", "portcullis", "--auth=trust"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        lines = [f"port = {POSTGRES}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{work}'"]
        lines += ["max_connections = 200", *options.postgres_option]
        with open(self.data / "postgresql.conf", "a") as configuration:
            configuration.write("\n".join(lines) + "\n")
        self.control("start", "-l", work / "postgres.log")
        self.pid = int((self.data / "postmaster.pid").read_text().split()[0])
        return self

    def control(self, *what):
        command = [*self.owner, self.bin / "pg_ctl", "-w", "-D", self.data, *what]
        subprocess.run(pinned(options.other_core, *command), stdout=subprocess.DEVNULL, check=True)

    def __exit__(self, *_):
        self.control("stop", "-m", "immediate")

    def psql(self, sql, database="postgres"):
        command = ["psql", "-h", "127.0.0.1", "-p", str(POSTGRES), "-U", "portcullis", "-qAt", database, "-c", sql]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def seconds(self):
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return processor_seconds(self.pid, True) + sum(processor_seconds(child) for child in children)

    @contextlib.contextmanager
    def watched(self, found):
        sql = """select coalesce(wait_event_type || ' ' || wait_event, 'runs'), count(*) from pg_stat_activity
                 where backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid() group by 1"""
        command = ["psql", "-h", "127.0.0.1", "-p", str(POSTGRES), "-U", "portcullis", "-qAt", "postgres"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stdin.write(f"{sql} \\watch 0.05\n")
        process.stdin.flush()
        yield
        process.send_signal(signal.SIGTERM)
        for line in process.stdout.read().splitlines():
            event, _, count = line.rpartition("|")
            if event and count.isdigit():
                found[event] += int(count)
        process.wait()


def configuration(index, database, folder):
    port = BASE + index
    (folder / "portcullis.toml").write_text(f"""
public_url = "http://127.0.0.1:{port}"
listen = "127.0.0.1:{port}"
database_url = "{database}"
secret_key = "{'00' * 32}"
[upstream]
provider = "oidc"
issuer = "http://127.0.0.1:{PROVIDER}"
client_id = "load"
client_secret = "load-secret-load-secret"
[[resource]]
path = "/mcp"
target = "http://127.0.0.1:{BACKEND}/mcp"
scopes = ["read", "write"]
[limits]
request_rates = false
clients = 10000000
pending_logins = 1000000
connections = 100000
database_size = 100000000000
requests_per_person = 100000
streams_per_person = 100000
database_connections = {options.connections}
""")
    return port


@contextlib.contextmanager
def replicas(number, postgres, through_relay):
    with contextlib.ExitStack() as stack:
        if postgres:
            postgres.psql("drop database if exists load")
            postgres.psql("create database load")
        started = []
        for index in range(number):
            folder = work / f"replica{index}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            database = f"sqlite://{folder}/portcullis.db"
            if postgres:
                port = RELAY if through_relay else POSTGRES
                database = f"postgres://portcullis@127.0.0.1:{port}/load?sslmode=disable"
            port = configuration(index, database, folder)
            command = pinned(options.server_core, options.server, "serve", "--config", folder / "portcullis.toml")
            started.append(stack.enter_context(running(command, port, f"replica{index}.log")))
        time.sleep(1)
        yield started


def load(scenario, number, seconds):
    """Loads all replicas at once. Returns operations in a second, and the failures."""
    callers = max(1, options.callers // number)
    commands = [
        pinned(options.other_core, options.load, "run", scenario, "--base", f"http://127.0.0.1:{BASE + index}",
           "--callers", callers, "--seconds", max(1, round(seconds)))
        for index in range(number)
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    lines = [json.loads(process.communicate()[0]) for process in running]
    return (
        sum(line["per_second"] for line in lines),
        sum(line["failures"] for line in lines),
        max(line["p50_us"] for line in lines),
        max(line["p99_us"] for line in lines),
        next((line["first_failure"] for line in lines if line["first_failure"]), None),
    )


def relay(delay):
    command = pinned(options.other_core, options.load, "relay", "--listen", f"127.0.0.1:{RELAY}", "--to", f"127.0.0.1:{POSTGRES}",
                 "--delay-ms", delay, *(["--statements"] if options.statements else []))
    return running(command, RELAY, "relay.log")


def counts(process):
    before = (work / "relay.log").read_text()
    process.send_signal(signal.SIGUSR1)
    while True:
        time.sleep(0.02)
        new = (work / "relay.log").read_text()[len(before):]
        if new.endswith("\n"):
            return json.loads(new.splitlines()[-1])


def measure(scenario, number, postgres, servers, seconds):
    load(scenario, number, 1)
    before = [processor_seconds(server.pid) for server in servers], postgres.seconds() if postgres else 0
    rate, failures, p50, p99, first = load(scenario, number, seconds)
    operations = rate * max(1, round(seconds))
    after = [processor_seconds(server.pid) for server in servers], postgres.seconds() if postgres else 0
    line = {
        "scenario": scenario,
        "replicas": number,
        "per_second": round(rate),
        "server_us": round((sum(after[0]) - sum(before[0])) / operations * 1e6),
        "p50_us": p50,
        "p99_us": p99,
    }
    if postgres:
        line["database_us"] = round((after[1] - before[1]) / operations * 1e6)
    if failures:
        line["failures"], line["first_failure"] = failures, first
    return line


def counted(scenario, line, postgres):
    """Round trips of one operation: few callers, so that background work weighs little against many operations."""
    with relay(0) as process, replicas(1, postgres, True):
        load(scenario, 1, 1)
        before = counts(process)
        rate, *_ = load(scenario, 1, 3)
        after = counts(process)
        operations = rate * 3
        line["round_trips"] = round((after["round_trips"] - before["round_trips"]) / operations, 2)
        line["statements"] = round((after["executed"] - before["executed"]) / operations, 2)
        if options.statements:
            for text, count in sorted(after["statements"].items(), key=lambda item: -item[1]):
                each = (count - before["statements"].get(text, 0)) / operations
                if each > 0.02:
                    print(f"  {each:6.2f}  {text[:150]}", flush=True)


def waited(scenario, line, postgres, number):
    found = collections.Counter()
    with replicas(number, postgres, False):
        load(scenario, number, 1)
        with postgres.watched(found):
            load(scenario, number, 3)
    busy = sum(found.values()) or 1
    line["waits"] = {event: round(100 * count / busy) for event, count in found.most_common(6)}


def main():
    around = pinned(options.other_core, options.load, "around", "--provider", f"127.0.0.1:{PROVIDER}", "--backend", f"127.0.0.1:{BACKEND}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(around, PROVIDER, "around.log"))
        postgres = None if options.sqlite else stack.enter_context(Postgres())
        for scenario in options.scenarios.split(","):
            for number in map(int, options.replicas.split(",")):
                with contextlib.ExitStack() as inner:
                    if options.delay_ms:
                        inner.enter_context(relay(options.delay_ms))
                    servers = inner.enter_context(replicas(number, postgres, bool(options.delay_ms)))
                    line = measure(scenario, number, postgres, servers, options.seconds)
                if postgres and not options.no_counts:
                    if number == 1:
                        counted(scenario, line, postgres)
                    waited(scenario, line, postgres, number)
                print(json.dumps(line), flush=True)


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
