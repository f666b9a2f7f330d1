"""Processes on the cores that are theirs, and the load on them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).parent.parent.parent
WORK = ROOT / "target/compare"
LOAD = str(WORK / "load/release/portcullis-load")
PORTCULLIS = os.environ.get("PORTCULLIS") or str(ROOT / "target/release/portcullis")
TICKS = os.sysconf("SC_CLK_TCK")
LOG_TAIL = 2000  # characters of a log that are shown when a process does not start


@dataclasses.dataclass(frozen=True)
class Cores:
    """The cores of the servers under load, and those of the load tool and of what it needs."""

    server: tuple
    load: tuple

    @staticmethod
    def of_this_machine():
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("at least two cores are needed: one for the server, one for the load")
        if len(cores) < 4:
            return Cores(tuple(cores[:1]), tuple(cores[1:]))
        return Cores(tuple(cores[:2]), tuple(cores[2:4]))

    def with_one_for_the_server(self):
        return Cores(self.server[:1], self.load)


def pinned(cores):
    return ["taskset", "-c", ",".join(map(str, cores))]


def descendants(pid):
    """The process and all processes below it, whichever group they are in."""
    parents = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = [pid]
    for parent in found:
        found.extend(child for child, of in parents.items() if of == parent)
    return found


def resident_kib(pid):
    total = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{each}/status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total


def own_ticks(pids):
    """Clock ticks that these processes, those below them and we ourselves have used, with what has ended."""
    total = sum(os.times()[:4]) * TICKS
    for pid in {each for pid in pids for each in descendants(pid)}:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))
    return total


def machine_ticks():
    """Clock ticks of all cores that were not idle, or that the hypervisor kept."""
    user, nice, system, _idle, _wait, *interrupts_and_stolen = pathlib.Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, [user, nice, system, *interrupts_and_stolen]))


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Started:
    """A process, and how long it took to its first answer."""

    def __init__(self, cores, command, port, env=None, log="server.log", cwd=None, speaks_http=True):
        if is_taken(port):
            raise SystemExit(f"something answers at port {port} already")
        self.log = WORK / log
        out = self.log.open("w")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [*pinned(cores), *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            while not self._answers(port, speaks_http):
                if self.process.poll() is not None or time.monotonic() - begun > 60:
                    raise SystemExit(f"{command} did not start: {self.log.read_text()[-LOG_TAIL:]}")
                time.sleep(0.001)
        except BaseException:  # a signal too: nobody else stops it yet
            self.stop()
            raise
        self.start_ms = (time.monotonic() - begun) * 1000

    @staticmethod
    def _answers(port, speaks_http):
        request = (
            "GET /.well-known/oauth-authorization-server HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
            if not speaks_http:
                return True
            s.sendall(request.encode())
            return bool(s.recv(1))
        return False

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        if self.process.poll() is None:
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


class Bench:
    """Loads servers, and notes what comes of it in the results of one part."""

    def __init__(self, seconds, notes):
        self.seconds, self.notes = seconds, notes
        self.cores = Cores.of_this_machine()
        self.around = None  # the identity provider and the MCP server

    def idle(self, who, server):
        time.sleep(1)
        self.notes.note(who, "idle", start_ms=server.start_ms, memory_kib=resident_kib(server.pid))

    def load(self, who, what, base, callers, *more, label=None, seconds=None, **watched):
        """`what` again and again at `base`, one URL or several of replicas.

        `watched` may have: `servers`, processes; `database`, a process, and `database_on`, "server" or "load", whose
        cores it uses; `helpers`, further processes of the load side; `width`, the most cores that the servers can
        use; `cores`, if they are not the usual ones.
        """
        bases = [base] if isinstance(base, str) else base
        cores = watched.get("cores") or self.cores
        groups = {
            "server": [each.pid for each in watched.get("servers", [])],
            "database": [watched["database"]] if watched.get("database") else [],
            "load": [each.pid for each in [self.around, *watched.get("helpers", [])]],
        }
        watches = [f"--watch={name}={pid}" for name, pids in groups.items() for pid in pids]
        command = [*pinned(cores.load), LOAD, "run", what, *(f"--base={base}" for base in bases), *watches]
        command += ["--callers", str(callers), "--seconds", str(seconds or self.seconds), *more]
        label = label or what
        pids = [pid for group in groups.values() for pid in group]
        begun, own, machine = time.monotonic(), own_ticks(pids), machine_ticks()
        done = subprocess.run(command, capture_output=True, text=True)
        others = machine_ticks() - machine - (own_ticks(pids) - own)
        others /= (time.monotonic() - begun) * TICKS * os.cpu_count()
        if done.returncode:
            print(f"  {who}, {label}: {done.stderr.strip()[:300]}", flush=True)
            self.notes.note(who, label, failures=1)
            return None
        line = json.loads(done.stdout)
        noted = {name: line[name] for name in ["p50_us", "p99_us", "open", "kib_per_stream"] if line.get(name)}
        noted["per_second"], noted["callers"] = line.get("per_second"), callers
        noted["failures"], noted["others"] = line.get("failures") or 0, max(others, 0)
        if line.get("operations"):
            noted |= processor_time(line, groups, cores, watched)
        elif what != "streams":
            noted["failures"] += 1
        self.notes.note(who, label, **{name: value for name, value in noted.items() if value is not None})
        print(f"  {who}, {label}: {shown(noted)}{' ' + line['first_failure'][:300] if line.get('first_failure') else ''}",
              flush=True)
        return line


def processor_time(line, groups, cores, watched):
    """Of each operation, and how busy the two sides were, from 0 to 1."""
    used = {name: line["cpu_us"].get(name, 0) for name in ["server", "database", "load"]}
    each = {f"{name}_us": used[name] / line["operations"] for name in used if groups[name]}
    on = watched.get("database_on", "server")
    busy = {"server": used["server"], "load": used["load"]}
    busy[on] += used["database"]
    width = {"server": min(watched.get("width") or 99, len(cores.server)), "load": len(cores.load)}
    if groups["server"]:
        each["server_busy"] = busy["server"] / line["seconds"] / 1e6 / width["server"]
    each["load_busy"] = busy["load"] / line["seconds"] / 1e6 / width["load"]
    return each


def shown(noted):
    return ", ".join(f"{name} {value:,.4g}" for name, value in noted.items() if value is not None)
