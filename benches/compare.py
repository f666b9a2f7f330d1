"""Measures servers one after another and writes docs/dev/benchmarks.md; started by compare.sh.

compare.py ROUNDS SECONDS [PART…], or compare.py --render to write the page from what was measured before.
"""

import pathlib
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))

from comparison import parts, report, servers  # noqa: E402
from comparison.machine import Bench  # noqa: E402
from comparison.results import Notes, Results  # noqa: E402


def main(arguments):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    results = Results()
    if arguments != ["--render"]:
        measure(results, int(arguments[0]), int(arguments[1]), arguments[2:])
    report.write(results)


def measure(results, rounds, seconds, wanted):
    known = [*parts.REPEATED, *parts.ONCE]
    if unknown := set(wanted) - set(known):
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [part for part in known if not wanted or part in wanted]
    notes = {part: Notes() for part in chosen}
    bench, begun = Bench(seconds, None), time.monotonic()
    print(f"cores of the server: {list(bench.cores.server)}, of the load: {list(bench.cores.load)}", flush=True)

    def run(part, function, round_, of):
        print(f"[{time.monotonic() - begun:4.0f} s] {part}, round {round_} of {of}", flush=True)
        bench.notes = notes[part]
        function(bench)
        results.keep(part, notes[part], round_, seconds)

    with servers.around(bench.cores) as around:
        bench.around = around
        for round_ in range(rounds):
            for part in filter(chosen.__contains__, parts.REPEATED):
                run(part, parts.REPEATED[part], round_ + 1, rounds)
        for part in filter(chosen.__contains__, parts.ONCE):
            run(part, parts.ONCE[part], 1, 1)
    print(f"[{time.monotonic() - begun:4.0f} s] measured", flush=True)


main(sys.argv[1:])
