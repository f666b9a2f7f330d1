"""Writes the page from what was measured."""

import statistics
import textwrap

from comparison.machine import ROOT
from comparison.parts import DURABLE, HOP_CALLERS, MANY, POSTGRES_CALLERS, STEPS, callers_of

PEERS = {
    "Portcullis": "portcullis",
    "FastMCP, Redis": "fastmcp",
    "FastMCP, best": "fastmcp",
    "FastMCP, file store": "fastmcp",
    "Ory Hydra": "hydra",
    "oidc-provider": "oidc-provider",
}
# A side that was busy for less than this part of the time did not limit.
BUSY = 0.85
# Where others used more of the machine, a side that was not busy may have waited for a core.
OTHERS = 0.15
NOT_THERE = "–"


def number(value):
    if value is None:
        return NOT_THERE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percent(share):
    return f"{share:.0%}".replace("%", " %")


def times(value):
    return (f"{value:,.0f}" if value >= 10 else f"{value:.2f}") + " ×"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


class Measured:
    """One operation of one server."""

    def __init__(self, results, part, who, what):
        self.results, self.place = results, (part, who, what)
        self.what = what
        self.rate, self.own = self("per_second"), self("server_us")
        database = self("database_us")
        self.cost = None if self.own is None else self.own + (database or 0)

    def __call__(self, name):
        return self.results.median(*self.place, name)

    def limit(self):
        server, load = self("server_busy"), self("load_busy")
        if load is None:
            return NOT_THERE
        if max(server or 0, load) < BUSY:
            is_durable = self.what.split()[0] in DURABLE
            if is_durable and self.place[1].startswith("network"):
                return "network"
            if (self("others") or 0) > OTHERS:
                return "unclear"
            return "disk/commit" if is_durable else "neither"
        return "server" if (server or 0) >= load else "load"

    def busy(self, side):
        value = self(f"{side}_busy")
        return NOT_THERE if value is None else percent(min(value, 1))

    def costs(self):
        """Cells: operations a second, processor time by side, how busy, what limited."""
        sides = [number(self(f"{side}_us")) for side in ["server", "database", "load"]]
        return [number(self.rate), *sides, self.busy("server"), self.busy("load"), self.limit()]


class Page:
    def __init__(self, results):
        self.results = results

    def of(self, who, what, part=None):
        return Measured(self.results, part or PEERS[who], who, what)

    def at_its_best(self, what, part="portcullis"):
        found = [self.of("Portcullis", f"{what} at {callers}", part) for callers in MANY]
        return max(found, key=lambda measured: measured.rate or 0)

    def aims(self):
        redis, best, files = "FastMCP, Redis", "FastMCP, best", "FastMCP, file store"
        registrations = "durable registrations/s, compared with FastMCP's durable default"
        calls = "authorised MCP calls/s through the gateway, compared with nginx's plain hop"
        hop = f"hop at {HOP_CALLERS[-1]}"
        rows = [
            self.flows("one core", is_two=False),
            self.flows("two cores", is_two=True),
            compared("whole flows/s, compared with FastMCP at its best", 20, self.at_its_best("flows"),
                     self.of(best, "flows")),
            compared("refreshes/s, compared with FastMCP with Redis", 200, self.at_its_best("refreshes"),
                     self.of(redis, "refreshes")),
            compared("refreshes/s, compared with FastMCP at its best", 30, self.at_its_best("refreshes"),
                     self.of(best, "refreshes")),
            compared(registrations, 20, self.at_its_best("registrations"), self.of(files, "registrations")),
            compared(calls, 0.7, self.of("Portcullis", hop, "gateway"), self.of("nginx", hop, "gateway")),
            self.latency(),
            *self.sizes(),
            self.growth(),
        ]
        return rows

    def flows(self, cores, is_two):
        text = f"whole flows/s on {cores}, compared with FastMCP with Redis"
        has_two = len(self.machine("portcullis").get("server_cores", [])) > 1
        if is_two and not has_two:
            there = self.machine("portcullis").get("cores", "fewer")
            return row(text, "≥ 100 ×", f"not measured: needs four cores, this machine has {there}", NOT_THERE)
        part = "one-core" if has_two and not is_two else None
        peer = self.of("FastMCP, Redis", "flows", part)
        return compared(text, 100, self.at_its_best("flows", part or "portcullis"), peer)

    def latency(self):
        text = "added median latency of the hop, one caller, compared with nginx's"
        direct, plain, own = (
            self.of(who, "hop at 1", "gateway")("p50_us") for who in ["direct", "nginx", "Portcullis"]
        )
        if not (direct and plain and own):
            return aim(text, "≤ 1.5 ×", None, None)
        added, of_nginx = own - direct, max(plain - direct, 1)
        shown = f"{added / of_nginx:.2f} × ({added:.0f} µs and {of_nginx:.0f} µs)"
        return aim(text, "≤ 1.5 ×", shown, added <= 1.5 * of_nginx)

    def sizes(self):
        idle = self.of("Portcullis", "idle")
        memory, theirs = idle("memory_kib"), self.of("FastMCP, Redis", "idle")("memory_kib")
        streams = self.of("Portcullis", "streams", "streams")
        each, opened, start = streams("kib_per_stream"), streams("open"), idle("start_ms")
        both = memory and theirs
        yield aim("idle memory, compared with FastMCP's", "≤ 1/6", both and f"1/{theirs / memory:.1f}",
                  both and memory * 6 <= theirs)
        yield aim("memory per idle open event stream", "≤ 20 KB", each and f"{each:.1f} KiB, {opened:,.0f} open",
                  each and each * 1.024 <= 20)
        allowed = self.machine("streams").get("files", 0)
        needed = "" if not opened or opened >= 20_000 else f", all that {allowed:,} files for a process allow"
        yield aim("open event streams", "20,000", opened and f"{opened:,.0f}{needed}", opened and opened >= 20_000)
        yield aim("start to first answer", "≤ 50 ms", start and f"{start:.0f} ms", start and start <= 50)

    def growth(self):
        text = "a million clients and grants, compared with a thousand: time of the slowest operation"
        slowest = []
        for what in DURABLE:
            few, many = (self.of(f"{rows} rows", what, "million").rate for rows in ["1,000", "1,000,000"])
            if few and many:
                slowest.append((few / many, what))
        worst = max(slowest, default=None)
        return aim(text, "≤ 2 ×", worst and f"{worst[0]:.2f} × ({worst[1]})", worst and worst[0] <= 2)

    def side_by_side(self):
        for what in STEPS:
            yield row(f"{what}/s", *(number(self.of(who, what).rate) for who in PEERS))
        for name, text in [("start_ms", "start, ms"), ("memory_kib", "idle memory, KiB")]:
            yield row(text, *(number(self.of(who, "idle")(name)) for who in PEERS))

    def wide(self):
        for what in DURABLE:
            for callers in MANY:
                found = self.of("Portcullis", f"{what} at {callers}")
                latencies = [found(name) for name in ["p50_us", "p99_us"]]
                milliseconds = [number(each and each / 1000) for each in latencies]
                yield row(f"{what}/s", str(callers), number(found.rate), *milliseconds)

    def costs(self):
        for what in STEPS:
            for who in PEERS:
                found = self.of(who, what)
                if found.rate:
                    yield row(what, str(callers_of(what)), who, *found.costs())
            for callers in MANY:
                found = self.of("Portcullis", f"{what} at {callers}")
                if found.rate:
                    yield row(what, str(callers), "Portcullis", *found.costs())
        for callers in HOP_CALLERS:
            for who in ["direct", "nginx", "Portcullis"]:
                found = self.of(who, f"hop at {callers}", "gateway")
                if found.rate:
                    yield row("hop", str(callers), who, *found.costs())

    def hops(self):
        for who in ["direct", "nginx", "Portcullis"]:
            found = [self.of(who, f"hop at {callers}", "gateway") for callers in HOP_CALLERS]
            yield row(who, *(cell for each in found for cell in [number(each.rate), number(each("p50_us"))]))

    def streams(self):
        for who in ["Portcullis", "nginx", "FastMCP, Redis"]:
            found = self.of(who, "streams", "streams")
            yield row(who, number(found("open")), number(found("kib_per_stream")))

    def databases(self):
        rounds = [("SQLite", "SQLite", "1")]
        rounds += [(f"replicas: {number}", "PostgreSQL", str(number)) for number in [1, 2, 3]]
        for what, callers in POSTGRES_CALLERS.items():
            for who, database, replicas in rounds:
                found = self.of(who, what, "postgres")
                yield row(what, str(callers), database, replicas, *found.costs())

    def trips(self):
        for what in POSTGRES_CALLERS:
            found = self.of("relay", what, "postgres")("round_trips")
            yield row(what, NOT_THERE if found is None else f"{found:.3g}")

    def network(self):
        for what, callers in POSTGRES_CALLERS.items():
            for replicas in [1, 2]:
                found = self.of(f"network, replicas: {replicas}", what, "postgres")
                median = found("p50_us")
                yield row(what, str(callers), str(replicas), *found.costs(), number(median and median / 1000))

    def waits(self):
        for what in POSTGRES_CALLERS:
            for replicas in [1, 2, 3]:
                found = self.results.all("postgres", f"replicas: {replicas}", what, "waits")
                counts = {}
                for event, times_seen in (pair for each in found for pair in each.items()):
                    counts[event] = counts.get(event, 0) + times_seen
                total = sum(counts.values())
                most = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
                shown = [f"{event}, {percent(times_seen / total)}" for event, times_seen in most]
                yield row(what, str(replicas), *(shown + [NOT_THERE] * 3)[:3])

    def machine(self, part):
        return self.results.parts.get(part, {}).get("machine", {})

    def newest(self):
        machines = [self.machine(part) for part in self.results.parts]
        return max(machines, key=lambda machine: machine["date"], default={})

    def run(self):
        """When, where and how long: the same for all parts, or said for each."""
        runs = {}
        for part, kept in self.results.parts.items():
            machine = kept["machine"]
            when = f"{machine['date']}, commit {machine['commit']}, {machine['cpu']}, {machine['cores']} cores"
            how = f"{rounds(kept['rounds'])} of {kept['seconds']} s"
            runs.setdefault(when, {}).setdefault(how, []).append(part)
        for when, parts_by_length in runs.items():
            parts = ". ".join(f"{how}: {', '.join(parts)}" for how, parts in parts_by_length.items())
            yield f"- {when}. {parts}"

    def every(self, name):
        """All values of this name, whatever they were noted of."""
        for kept in self.results.parts.values():
            for whats in kept["values"].values():
                for values in whats.values():
                    yield from values.get(name, [])

    def others(self):
        shares = sorted(self.every("others"))
        if not shares:
            return NOT_THERE
        return f"{percent(statistics.median(shares))} of the machine in the median, {percent(shares[-1])} at most"

    def split(self):
        machine = self.machine("portcullis") or self.newest()
        server, load = (machine.get(f"{side}_cores", []) for side in ["server", "load"])
        return f"{cores(server)}: the server, and PostgreSQL where there is one", f"{cores(load)}"

    def values(self):
        versions = {}
        for part in self.results.parts:
            versions |= {name: value for name, value in self.machine(part)["versions"].items() if value}
        requirements = (ROOT / "benches/peers/requirements.txt").read_text().split()
        network = self.of("network", "relay", "postgres")("round_trip_ms")
        workers = len(self.machine("fastmcp").get("server_cores", [0]))
        tables = {
            "AIMS": self.aims(), "TABLE": self.side_by_side(), "WIDE": self.wide(), "COSTS": self.costs(),
            "HOPS": self.hops(), "STREAMS": self.streams(), "DATABASES": self.databases(), "TRIPS": self.trips(),
            "NETWORK": self.network(), "WAITS": self.waits(),
        }
        server, load = self.split()
        return {name: "\n".join(rows) for name, rows in tables.items()} | {
            "RUN": "\n".join(self.run()), "OTHERS": self.others(), "SERVER_CORES": server, "LOAD_CORES": load,
            "VERSIONS": " · ".join([*versions.values(), *requirements, "oidc-provider 9.13.3", "Ory Hydra 2.3.0"]),
            "FILES": f"{self.machine('streams').get('files', 0):,}", "FAILURES": f"{sum(self.every('failures')):,.0f}",
            "ROUND_TRIP": NOT_THERE if network is None else f"{network:.1f} ms",
            "WORKERS": "two workers" if workers > 1 else "one worker, because the server has one core",
            "NGINX_WORKERS": "two workers" if workers > 1 else "one worker",
        }


def cores(numbers):
    return ("core " if len(numbers) == 1 else "cores ") + ", ".join(map(str, numbers))


def rounds(number_of):
    return "One round" if number_of == 1 else f"{number_of} rounds"


def aim(text, wanted, shown, is_met):
    if not shown:
        return row(text, wanted, NOT_THERE, NOT_THERE)
    return row(text, wanted, shown, "reached" if is_met else "missed")


def compared(text, factor, own, peer):
    """By rate, or by processor time where the load was what limited one of the two."""
    wanted = f"≥ {factor} ×"
    if not own.rate or not peer.rate:
        return aim(text, wanted, None, None)
    rate, cost = own.rate / peer.rate, peer.cost / own.cost if own.cost and peer.cost else None
    if cost is None:
        return aim(text, wanted, times(rate), rate >= factor)
    limited = [name for name, each in [("Portcullis", own), ("the other", peer)] if each.limit() == "load"]
    if limited:
        shown = f"{times(cost)} by processor time; {times(rate)} by rate, but the load limited {' and '.join(limited)}"
        return aim(text, wanted, shown, cost >= factor)
    return aim(text, wanted, f"{times(rate)}; {times(cost)} by processor time", rate >= factor)


def write(results):
    text = (ROOT / "benches/benchmarks.template.md").read_text()
    for name, value in Page(results).values().items():
        text = text.replace("{{" + name + "}}", value)
    (ROOT / "docs/dev/benchmarks.md").write_text(filled(text))


def filled(text):
    """Fills the lines of paragraphs and lists again, after values have taken the place of their names."""
    blocks, is_code = [], False
    for line in text.splitlines():
        starts_item, fence = line.startswith("- "), line.startswith("```")
        is_prose = not is_code and not fence and line.strip() and not line.startswith(("|", "#"))
        if is_prose and not starts_item and blocks and blocks[-1][0]:
            blocks[-1][1].append(line.strip())
        else:
            blocks.append((bool(is_prose), [line]))
        is_code ^= fence
    lines = []
    for is_prose, of_block in blocks:
        if not is_prose:
            lines += of_block
            continue
        indent = "  " if of_block[0].startswith("- ") else ""
        whole = " ".join(of_block)
        lines += textwrap.wrap(whole, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"
