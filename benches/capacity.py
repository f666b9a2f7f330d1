#!/usr/bin/env python3
"""What each operation costs the server: processor time, memory of streams and at rest. Prints the rows of the table
of costs in docs/capacity.md.

Usage: capacity.py PORTCULLIS LOAD [SECONDS [DATABASE_URL]]. BASE: the first of three ports (default 9700). The
server runs on the first core, everything else on the second, if there are two."""

import json, os, shutil, subprocess, sys, tempfile, time

from processes import pinned, processor_seconds, wait_for_port

PORTCULLIS, LOAD = sys.argv[1:3]
SECONDS = sys.argv[3] if len(sys.argv) > 3 else "5"
DATABASE = sys.argv[4] if len(sys.argv) > 4 else None
BASE = int(os.environ.get("BASE", "9700"))
URL, PROVIDER, BACKEND = f"http://127.0.0.1:{BASE}", f"127.0.0.1:{BASE + 1}", f"127.0.0.1:{BASE + 2}"
WORK = tempfile.mkdtemp()
# Callers at once: alone, each pays for a whole commit and its wake-ups; together they share them.
SCENARIOS = [("flows", "flow: from the authorization request to tokens", (1, 32)), ("refreshes", "refresh", (1, 32)),
             ("registrations", "registration of a new client", (1, 32)), ("calls", "authorised call through the gateway", (1, 32)),
             ("metadata", "metadata document", (32,))]

def memory(pid):
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return int(lines["VmRSS"].split()[0]), int(lines["RssAnon"].split()[0])

def main(children):
    around = subprocess.Popen(pinned(1, LOAD, "around", "--provider", PROVIDER, "--backend", BACKEND))
    children.append(around)
    with open(f"{WORK}/portcullis.toml", "w") as file:
        file.write(f'''public_url = "{URL}"
listen = "127.0.0.1:{BASE}"
database_url = "{DATABASE or f'sqlite://{WORK}/portcullis.db'}"
secret_key = "only for a measurement, 0123456789 0123456789"
[upstream]
provider = "oidc"
issuer = "http://{PROVIDER}"
client_id = "load"
client_secret = "load-secret-load-secret"
[[resource]]
path = "/mcp"
target = "http://{BACKEND}/mcp"
scopes = ["read", "write"]
[limits]
request_rates = false
clients = 10000000
pending_logins = 1000000
connections = 100000
connections_per_address = 100000
database_size = 100000000000
requests_per_person = 100000
streams_per_person = 100000
''')
    wait_for_port(BASE + 1, around)
    server = subprocess.Popen(pinned(0, PORTCULLIS, "serve", "--config", f"{WORK}/portcullis.toml"),
                              stdout=open(f"{WORK}/log", "w"), stderr=subprocess.STDOUT)
    children.append(server)
    wait_for_port(BASE, server)
    time.sleep(3)
    before, begun = processor_seconds(server.pid), time.time()
    time.sleep(20)
    rest = (processor_seconds(server.pid) - before) / (time.time() - begun)
    print(f"| at rest: share of a core | {rest:.2%} |")
    print("| at rest: memory, of which its own | {:.1f} MiB, {:.1f} MiB |".format(*(kib / 1024 for kib in memory(server.pid))))
    def run(scenario, callers, *more):
        before = processor_seconds(server.pid)
        done = subprocess.run(pinned(1, LOAD, "run", scenario, "--base", URL, "--callers", str(callers), "--seconds", SECONDS, *more),
                              capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout), processor_seconds(server.pid) - before
    for scenario, name, callers in SCENARIOS:
        for at_once in callers:
            told, took = run(scenario, at_once)
            if told["failures"]:
                raise SystemExit(f"{scenario}: {told}")
            each = took / (told["per_second"] * float(SECONDS)) * 1e6
            together = "one after another" if at_once == 1 else f"{at_once} at once"
            print(f"| {name}, {together} | {each:,.0f} µs | {told['per_second']:,.0f}/s, median {told['p50_us'] / 1000:.1f} ms |", flush=True)
    streams = subprocess.Popen(pinned(1, LOAD, "run", "streams", "--base", URL, "--callers", "2000", "--seconds", "60",
                                      "--pid", str(server.pid)), stdout=subprocess.PIPE, text=True)
    time.sleep(20)
    before, begun = processor_seconds(server.pid), time.time()
    time.sleep(30)
    share = (processor_seconds(server.pid) - before) / (time.time() - begun)
    told = json.loads(streams.communicate()[0])
    each = (share - rest) / told["open"] * 1e6
    print(f"| open stream, idle | {told['kib_per_stream']} KiB, {each:.1f} µs each second | {told['open']} open |")

if __name__ == "__main__":
    started = []
    try:
        main(started)
    finally:
        for child in reversed(started):
            child.terminate()
            child.wait()
        shutil.rmtree(WORK)
