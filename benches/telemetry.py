#!/usr/bin/env python3
"""What telemetry costs an authorised call: processor time of the server, divided by that without telemetry.

Servers that differ in nothing but `[telemetry]` take turns in one run, in another order each round. Prints one line
of JSON for each; `ratio` is the median of the rounds, and `quarters` are the rounds in the middle half. The first
line is a second server without telemetry: how far its ratio is from 1 is the noise. A collector that is down (nothing
listens) should cost at most 1 %.

Usage: benches/telemetry.py [rounds] [seconds] [callers]
Environment: PORTCULLIS, LOAD: binaries that are there already; BASE: the first of 60 free ports."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from processes import processor_seconds, wait_for_port

ROUNDS, SECONDS, CALLERS = (sys.argv[1:] + ["12", "3", "32"][len(sys.argv) - 1 :])[:3]
ROOT = Path(__file__).resolve().parent.parent
BASE = int(os.environ.get("BASE", "9000"))
PROVIDER, BACKEND, LIVE, DOWN = (BASE + 50 + n for n in range(4))
SERVERS = [
    ("off", None),
    ("off, again", None),
    ("traces = 0, collector down", f'otlp = "http://127.0.0.1:{DOWN}"\ntraces = 0'),
    ("traces = 0.1, collector down", f'otlp = "http://127.0.0.1:{DOWN}"'),
    ("traces = 1, collector down", f'otlp = "http://127.0.0.1:{DOWN}"\ntraces = 1'),
    ("traces = 0.1, collector up", f'otlp = "http://127.0.0.1:{LIVE}"'),
    ("traces = 1, collector up", f'otlp = "http://127.0.0.1:{LIVE}"\ntraces = 1'),
]
CONFIG = """
public_url = "http://127.0.0.1:{port}"
listen = "127.0.0.1:{port}"
database_url = "sqlite://{folder}/portcullis.db"
[upstream]
provider = "oidc"
issuer = "http://127.0.0.1:{provider}"
client_id = "load"
client_secret = "load-secret-load-secret"
[[resource]]
path = "/mcp"
target = "http://127.0.0.1:{backend}/mcp"
scopes = ["read", "write"]
[limits]
request_rates = false
clients = 10000000
pending_logins = 1000000
connections = 100000
requests_per_person = 100000
streams_per_person = 100000
"""


class Collector(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def binary(variable, folder, target, name):
    """Returns a binary, which is built if the environment names none."""
    if given := os.environ.get(variable):
        return given
    build = ["cargo", "build", "--release", "--quiet", "--target-dir", target]
    subprocess.run(build, cwd=folder, check=True)
    return f"{target}/release/{name}"


def main():
    portcullis = binary("PORTCULLIS", ROOT, ROOT / "target", "portcullis")
    load = binary("LOAD", ROOT / "load", ROOT / "target/compare/load", "portcullis-load")
    # The servers have one half of the processor, and everything else the other.
    cores = os.cpu_count() or 1
    half = max(cores // 2, 1)
    servers_at = ["taskset", "-c", f"0-{half - 1}"] if cores > 1 else []
    if cores > 1:
        os.sched_setaffinity(0, range(half, cores))
    threading.Thread(
        target=ThreadingHTTPServer(("127.0.0.1", LIVE), Collector).serve_forever, daemon=True
    ).start()
    processes = []
    with tempfile.TemporaryDirectory() as work:

        def start(name, command, port):
            with open(f"{work}/{name}.log", "w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            processes.append(process)
            wait_for_port(port, process)
            return process.pid

        try:
            provider, backend = f"127.0.0.1:{PROVIDER}", f"127.0.0.1:{BACKEND}"
            around = [load, "around", "--provider", provider, "--backend", backend]
            start("around", around, PROVIDER)
            pids = []
            for number, (_, telemetry) in enumerate(SERVERS):
                folder, port = f"{work}/{number}", BASE + number
                os.mkdir(folder)
                text = CONFIG.format(
                    port=port, folder=folder, provider=PROVIDER, backend=BACKEND
                )
                text += f"[telemetry]\n{telemetry}\n" if telemetry else ""
                Path(f"{folder}/portcullis.toml").write_text(text)
                serve = [portcullis, "serve", "--config", f"{folder}/portcullis.toml"]
                pids.append(start(number, servers_at + serve, port))
            measure(load, pids)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def measure(load, pids):
    def per_call(number):
        """Returns the processor time of a call in microseconds."""
        before = processor_seconds(pids[number])
        base = f"http://127.0.0.1:{BASE + number}"
        run = [load, "run", "calls", "--base", base, "--callers", CALLERS, "--seconds", SECONDS]
        done = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
        if done["failures"]:
            sys.exit(f"calls failed: {done}")
        took = processor_seconds(pids[number]) - before
        return took / (done["per_second"] * float(SECONDS)) * 1e6

    numbers = list(range(len(SERVERS)))
    for number in numbers:
        per_call(number)  # caches and queues are full before anything counts
    rounds = []
    for turn in range(int(ROUNDS)):
        order = numbers[turn % len(numbers) :] + numbers[: turn % len(numbers)]
        taken = {number: per_call(number) for number in order}
        rounds.append([taken[number] for number in numbers])
    for number in numbers[1:]:
        ratios = sorted(taken[number] / taken[0] for taken in rounds)
        line = {
            "telemetry": SERVERS[number][0],
            "us_per_call": round(statistics.median(taken[number] for taken in rounds), 1),
            "us_without": round(statistics.median(taken[0] for taken in rounds), 1),
            "ratio": round(statistics.median(ratios), 3),
            "quarters": [round(ratios[len(ratios) * part // 4], 3) for part in (1, 3)],
            "rounds": len(rounds),
        }
        print(json.dumps(line), flush=True)


main()
