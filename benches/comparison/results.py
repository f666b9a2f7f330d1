"""What was measured, by part, in a file: each run replaces the parts that it measures."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

from comparison.machine import ROOT, WORK, Cores

FILE = WORK / "results.json"


class Notes:
    """What is noted of one part; several rounds note the same names."""

    def __init__(self):
        self.values = {}

    def note(self, who, what, **values):
        for name, value in values.items():
            self.values.setdefault(who, {}).setdefault(what, {}).setdefault(name, []).append(value)


class Results:
    def __init__(self):
        self.parts = json.loads(FILE.read_text()) if FILE.exists() else {}

    def keep(self, part, notes, rounds, seconds):
        machine = this_machine()
        self.parts[part] = {"rounds": rounds, "seconds": seconds, "machine": machine, "values": notes.values}
        temporary = FILE.with_suffix(".new")
        temporary.write_text(json.dumps(self.parts, indent=1))
        temporary.replace(FILE)

    def all(self, part, who, what, name):
        values = self.parts.get(part, {}).get("values", {})
        return values.get(who, {}).get(what, {}).get(name, [])

    def median(self, part, who, what, name="per_second"):
        values = self.all(part, who, what, name)
        return statistics.median(values) if values else None


def version(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "none"
    return ((done.stdout + done.stderr).strip().splitlines() or ["none"])[0]


def word(at, *command):
    """One word of what a program says of its version."""
    words = version(*command).split()
    return words[at] if len(words) > at else "none"


def this_machine():
    lines = open("/proc/cpuinfo").read().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = Cores.of_this_machine()
    postgres = os.environ.get("COMPARE_POSTGRES_BIN")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": version("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "server_cores": cores.server,
        "load_cores": cores.load,
        "files": files(),
        "versions": {
            "rustc": version("rustc", "--version").split(" (")[0],
            "nginx": version("nginx", "-v").removeprefix("nginx version: "),
            "redis": "Redis " + word(2, "redis-server", "--version").removeprefix("v="),
            "node": "Node " + version("node", "--version"),
            "python": version(sys.executable, "--version"),
            "go": "Go " + word(2, "go", "version").removeprefix("go"),
            "postgres": version(f"{postgres}/postgres", "--version") if postgres else None,
        },
    }


def files():
    """The files that a process may open."""
    done = subprocess.run(["bash", "-c", "ulimit -n"], capture_output=True, text=True)
    return int(done.stdout)
