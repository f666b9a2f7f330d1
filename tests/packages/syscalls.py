#!/usr/bin/env python3
"""Compares what a program did, as `strace -f` wrote it, with what the unit of the service allows.

Usage: syscalls.py TRACE UNIT PROGRAM

Only what comes after the program was started counts. A call that the filter of the unit refuses fails the check, and so
does memory that is both writable and executable (MemoryDenyWriteExecute).
"""

import re
import subprocess
import sys

listed = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True).stdout
sets, current = {}, None
for line in listed.splitlines():
    word = line.split("#")[0].strip()
    if line.startswith("@"):
        current = sets.setdefault(word, [])
    elif word and current is not None and line.startswith(" "):
        current.append(word)


def expand(name):
    return {name} if not name.startswith("@") else set().union(*(expand(one) for one in sets[name]))


trace, unit, program = sys.argv[1:]
allowed = expand("@default")
for line in open(unit):
    if line.startswith("SystemCallFilter="):
        names = line.split("=", 1)[1].split()
        refused = names[0].startswith("~")
        calls = set().union(*(expand(name.lstrip("~")) for name in names))
        allowed = allowed - calls if refused else allowed | calls

started, seen, wrong = False, set(), []
for line in open(trace, errors="replace"):
    found = re.match(r"\d+ +(\w+)\(", line)
    if f'execve("{program}"' in line:
        started = True
    elif found and started:
        seen.add(found[1])
        if found[1] in ("mmap", "mprotect") and "PROT_WRITE" in line and "PROT_EXEC" in line:
            wrong.append(line.strip())
if len(seen) < 30:
    sys.exit(f"only {len(seen)} system calls were seen")
wrong += sorted(f"the unit refuses {call}" for call in seen - allowed)
if wrong:
    sys.exit("\n".join(wrong))
print(f"{len(seen)} system calls, all of them allowed by the unit")
