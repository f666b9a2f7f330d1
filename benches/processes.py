"""Processes under measurement: the port they answer at, the cores they run on, the processor time they used."""

import contextlib
import os
import pathlib
import socket
import time

CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")


def pinned(cores, *command):
    """The command on these cores: a number (modulo the cores there are), or a list as taskset takes it. `None`: on any."""
    if isinstance(cores, int):
        cores %= CORES
    return [*([] if cores is None else ["taskset", "-c", str(cores)]), *map(str, command)]


def wait_for_port(port, process, seconds=60):
    """Returns as soon as something accepts connections at the port."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.002)
    raise SystemExit(f"nothing answers at port {port}: {process.args}")


def processor_seconds(pid, with_ended_children=False):
    """User and system time of a process; 0 if there is none."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0
    return sum(map(int, fields[11 : 15 if with_ended_children else 13])) / TICKS
