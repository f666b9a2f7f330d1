#!/usr/bin/env python3
"""Hours under mixed load at fixed, gentle rates: does anything grow? Run by benches/soak.sh.

Usage: soak.py WORK PORTCULLIS LOAD [MINUTES]. BASE: the first of four ports (default 9700). SEED_MINUTES: how much of
a day is in the database at the beginning, at these rates (default: MINUTES and ten more).

The server keeps most rows for a day after their end, so a database that begins empty grows for a day. This one
begins as it would be after a day at these rates: rows that end one after another during the run, so that clean-up
removes as many as the load adds. They are copies of what a short load wrote.

Writes WORK/samples.csv (one line each ten seconds) and WORK/result.md (the first tenth beside the last one)."""

import csv, http.client, html, json, os, random, re, signal, sqlite3, statistics, subprocess, sys, threading, time
from urllib.parse import urlencode, urljoin, urlsplit

from processes import processor_seconds, wait_for_port

WORK, PORTCULLIS, LOAD = (os.path.abspath(path) for path in sys.argv[1:4])
MINUTES = float(sys.argv[4]) if len(sys.argv) > 4 else 120
BASE = int(os.environ.get("BASE", "9700"))
PUBLIC, ADMIN, PROVIDER, BACKEND = BASE, BASE + 1, BASE + 2, BASE + 3
URL, DATABASE = f"http://127.0.0.1:{PUBLIC}", f"{WORK}/portcullis.db"
RATES = {"flows": 2, "refreshes": 20, "calls": 80, "registrations": 0.5, "changes": 2}
POOL, STREAMS = 800, 100
EVERY, ROWS_EVERY = 10, 60
SCRAPE, RELOAD, ROTATE = 15, 300, 600
SEED = float(os.environ.get("SEED_MINUTES", MINUTES + 10)) * 60
SETTLE = min(600, MINUTES * 60 / 10)
DAY = 86_400
PAGES = ["/", "/clients", "/clients?q=load", "/grants", "/grants?ended=1", "/people", "/usage", "/usage?range=7d",
         "/audit", "/audit?event=access_denied", "/keys"]

def configuration(turn):
    """The same but for one harmless key, so that a reload really replaces the application."""
    return f'''public_url = "{URL}"
listen = "127.0.0.1:{PUBLIC}"
database_url = "sqlite://{DATABASE}"
[upstream]
provider = "oidc"
issuer = "http://127.0.0.1:{PROVIDER}"
client_id = "load"
client_secret = "load-secret-load-secret"
recheck = "3m"
[[resource]]
path = "/mcp"
target = "http://127.0.0.1:{BACKEND}/mcp"
scopes = ["read", "write"]
[admin]
listen = "127.0.0.1:{ADMIN}"
subjects = ["person-0"]
[tokens]
access = "10m"
refresh_idle = "1h"
refresh_absolute = "1h"
login = "1m"
[limits]
request_rates = false
pages_per_minute = {300 + turn % 2}
connections_per_address = 1000
clients = 100000
pending_logins = 100000
pending_logins_per_address = 100000
unused_client_expiry = "10m"
audit_size = 8388608
usage_rows = 2000
'''

def configure(turn):
    with open(f"{WORK}/new.toml", "w") as file:
        file.write(configuration(turn))
    os.replace(f"{WORK}/new.toml", f"{WORK}/portcullis.toml")

def start():
    server = subprocess.Popen([PORTCULLIS, "serve", "--config", f"{WORK}/portcullis.toml"],
                              stdout=open(f"{WORK}/server.log", "a"), stderr=subprocess.STDOUT)
    wait_for_port(PUBLIC, server)
    wait_for_port(ADMIN, server)
    return server

def stop(process):
    process.terminate()
    process.wait()

# ---------------------------------------------------------------- a database that is a day old

def seed(seconds):
    """Copies what a short load wrote until there is as much as `seconds` of the soak write, ended a day ago."""
    db = sqlite3.connect(DATABASE)
    db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;")
    rate, per_grant = RATES["flows"], RATES["refreshes"] // RATES["flows"] + 1
    life = POOL // rate
    first = int(time.time()) - DAY + POOL // 25 + 30  # when the load begins
    db.execute("CREATE TEMP TABLE base AS SELECT row_number() OVER (ORDER BY g.id) - 1 AS i, g.id AS g, g.session_id AS s,"
               " c.id AS c FROM grants g JOIN authorization_codes c ON c.grant_id = g.id")
    (count,) = db.execute("SELECT COUNT(*) FROM base").fetchone()
    copies = -(-int(seconds * rate) // count)
    db.execute("CREATE TEMP TABLE copy AS WITH RECURSIVE k (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM k WHERE k < ?)"
               f" SELECT i, g, s, c, '-' || k AS k, {first} + (i + (k - 1) * {count}) / {rate} AS e FROM k, base", (copies,))
    db.execute("CREATE TEMP TABLE j AS WITH RECURSIVE j (j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM j WHERE j < ?) SELECT j FROM j",
               (per_grant,))
    def insert(table, source, **changed):
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        values = [changed.get(column, f"t.{column}") for column in columns]
        db.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {source}")
    insert("upstream_sessions", "copy JOIN upstream_sessions t ON t.id = s", id="t.id || k", subject="t.subject || k",
           sid="t.sid || k", last_ok_at="e - 100", facts_read_at="e - 100", created_at=f"e - {life}")
    insert("grants", "copy JOIN grants t ON t.id = g", id="t.id || k", session_id="s || k", created_at=f"e - {life}",
           expires_at=f"e - {life} + 3600", last_used_at="e - 40", revoked_at="e", end_reason="'revoked'")
    insert("authorization_codes", "copy JOIN authorization_codes t ON t.id = c", id="t.id || k", session_id="s || k",
           grant_id="g || k", created_at=f"e - {life}", expires_at=f"e - {life} + 60", redeemed_at=f"e - {life}")
    step = life // per_grant
    insert("refresh_tokens", "copy JOIN refresh_tokens t ON t.grant_id = g, j", id="t.id || k || '-' || j", grant_id="g || k",
           parent_id="CASE WHEN j = 1 THEN NULL ELSE t.id || k || '-' || (j - 1) END",
           issued_at=f"e - {life} + (j - 1) * {step}", expires_at=f"e - {life} + 3600",
           used_at=f"CASE WHEN j = {per_grant} THEN NULL ELSE e - {life} + j * {step} END",
           successor_id=f"CASE WHEN j = {per_grant} THEN NULL ELSE t.id || k || '-' || (j + 1) END",
           successor=f"CASE WHEN j = {per_grant} THEN NULL ELSE hex(randomblob(60)) END")
    insert("consents", "(SELECT row_number() OVER (ORDER BY id) - 1 AS n, * FROM consents) t JOIN copy ON i = n", id="t.id || k",
           expires_at="e")
    insert("logins", f"(SELECT row_number() OVER (ORDER BY id) - 1 AS n, * FROM logins) t JOIN copy ON i = n"
           f" WHERE e < {first} + 3660", id="t.id || k", created_at=f"e + {DAY - 3600 - 60}", expires_at=f"e + {DAY - 3600}",
           ended_at=f"e + {DAY - 3600 - 59}")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    print(f"seeded: {copies} copies of {count} sign-ins", flush=True)

# ---------------------------------------------------------------- the administrator

class Administrator:
    def __init__(self):
        self.cookies, self.connections, self.took, self.failures, self.first = {}, {}, [], 0, None
        self.lock = threading.Lock()

    def ask(self, url, form=None):
        parts = urlsplit(url)
        cookies = self.cookies.setdefault(parts.netloc, {})
        headers = {"accept": "text/html", "cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())}
        if form is not None:
            headers |= {"origin": f"{parts.scheme}://{parts.netloc}", "sec-fetch-site": "same-origin",
                        "content-type": "application/x-www-form-urlencoded"}
        connection = self.connections.setdefault(parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=30))
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        for again in (True, False):
            try:
                connection.request("GET" if form is None else "POST", path or "/", form and urlencode(form), headers)
                answer = connection.getresponse()
                break
            except (http.client.HTTPException, ConnectionError):  # an idle connection was closed
                connection.close()
                if not again:
                    raise
        text = answer.read().decode()
        for value in answer.headers.get_all("set-cookie") or []:
            name, _, rest = value.partition("=")
            cookies[name] = rest.split(";")[0]
        place = answer.headers.get("location")
        return answer.status, urljoin(url, place) if place else None, text

    def follow(self, url, form=None):
        status, to, text = self.ask(url, form)
        while to:
            url = to
            status, to, text = self.ask(url)
        return status, url, text

    def sign_in(self):
        status, url, text = self.follow(f"http://127.0.0.1:{ADMIN}/")
        form = re.search(r'<form[^>]*method="post".*?</form>', text, re.S | re.I).group(0)
        action = re.search(r'action="([^"]*)"', form)
        fields = {re.search(r'name="([^"]*)"', tag).group(1): html.unescape((re.search(r'value="([^"]*)"', tag) or ["", ""])[1])
                  for tag in re.findall(r"<(?:input|button)[^>]*name=[^>]*>", form)}
        status, url, text = self.follow(urljoin(url, html.unescape(action.group(1)) if action else url), fields)
        if status != 200 or "/grants" not in text:
            raise SystemExit(f"the administrator cannot sign in: {status} {url}\n{text[:2000]}")

    def run(self, ended):
        while not ended.wait(1):
            page, before = random.choice(PAGES), time.perf_counter()
            try:
                status, to, text = self.ask(f"http://127.0.0.1:{ADMIN}{page}")
                good = status == 200 and "</html>" in text
                cause = f"{page}: {status}"
            except Exception as error:
                good, cause = False, f"{page}: {error!r}"
            with self.lock:
                if good:
                    self.took.append((time.perf_counter() - before) * 1e6)
                else:
                    self.failures, self.first = self.failures + 1, self.first or cause

    def take(self):
        with self.lock:
            took, failures, first = sorted(self.took), self.failures, self.first
            self.took, self.failures, self.first = [], 0, None
        at = lambda share: took[min(int(len(took) * share), len(took) - 1)] if took else None
        return {"done": len(took), "p50_us": at(0.5), "p99_us": at(0.99), "max_us": took[-1] if took else None,
                "failures": failures, "skipped": 0, "first_failure": first}

# ---------------------------------------------------------------- what is sampled

def size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0

def status(pid):
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return {"rss_kib": int(lines["VmRSS"].split()[0]), "rss_anonymous_kib": int(lines["RssAnon"].split()[0]),
            "threads": int(lines["Threads"])}

def rows():
    db = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=10)
    try:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
                  if not name.startswith(("sqlite_", "_"))]
        counts = {f"rows {name}": db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables}
        counts["free pages"] = db.execute("PRAGMA freelist_count").fetchone()[0]
        return counts
    finally:
        db.close()

def scrape():
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status != 200:
        raise OSError(f"/metrics: {answer.status}")
    return text.count("\n")

def main():
    os.makedirs(WORK, exist_ok=True)
    configure(0)
    children = []
    try:
        measure(children)
    finally:
        for child in reversed(children):
            if child.poll() is None:
                stop(child)

def measure(children):
    around = subprocess.Popen([LOAD, "around", "--provider", f"127.0.0.1:{PROVIDER}", "--backend", f"127.0.0.1:{BACKEND}"])
    children.append(around)
    wait_for_port(PROVIDER, around)
    server = start()
    children.append(server)
    administrator = Administrator()
    administrator.sign_in()  # the first person whom the provider signs in
    subprocess.run([LOAD, "run", "flows", "--base", URL, "--callers", "4", "--seconds", "3"], check=True)
    time.sleep(2)
    stop(server)
    seed(SEED)
    server = start()
    children.append(server)
    load = subprocess.Popen([LOAD, "soak", "--base", URL, "--minutes", str(MINUTES), "--interval", str(EVERY), "--pool", str(POOL),
                             "--streams", str(STREAMS)] + [part for name, rate in RATES.items() for part in (f"--{name}", str(rate))],
                            stdout=subprocess.PIPE, stderr=open(f"{WORK}/load.log", "w"), text=True)
    children.append(load)
    ready = load.stdout.readline()
    if not ready:
        raise SystemExit(f"the load ended: see {WORK}/load.log")
    print("the soak begins", time.strftime("%T"), flush=True)
    ended, begun = threading.Event(), time.time()
    threading.Thread(target=administrator.run, args=(ended,), daemon=True).start()
    latest, troubles, samples = {}, [], []
    writer, output = None, open(f"{WORK}/samples.csv", "w", newline="")
    next_scrape, next_reload, next_rotation, next_rows, turn = begun, begun + RELOAD, begun + ROTATE, begun, 0
    before, before_at, series = processor_seconds(server.pid), time.time(), 0
    others = [around, load]
    before_others = sum(processor_seconds(p.pid) for p in others)
    for line in load.stdout:
        now, told = time.time(), json.loads(line)
        if server.poll() is not None:
            raise SystemExit("the server ended")
        operations = told["operations"] | {"admin page": administrator.take()}
        if now >= next_rows:
            next_rows += ROWS_EVERY
            latest = rows()
        if now >= next_scrape:
            next_scrape += SCRAPE
            begun_scrape = time.perf_counter()
            try:
                series = scrape()
            except OSError as cause:
                troubles.append(f"{time.strftime('%T')} scrape: {cause}")
            operations["scrape"] = {"done": 1, "p50_us": (time.perf_counter() - begun_scrape) * 1e6, "failures": 0}
        if now >= next_reload:
            next_reload, turn = next_reload + RELOAD, turn + 1
            configure(turn)
            server.send_signal(signal.SIGHUP)
        if now >= next_rotation:
            next_rotation += ROTATE
            done = subprocess.run([PORTCULLIS, "keys", "rotate", "--config", f"{WORK}/portcullis.toml"], capture_output=True, text=True)
            if done.returncode:
                troubles.append(f"{time.strftime('%T')} rotation: {done.stdout}{done.stderr}")
        after = processor_seconds(server.pid)
        after_others = sum(processor_seconds(p.pid) for p in others if p.poll() is None)
        sample = {"minutes": round((now - begun) / 60, 3), "at": time.strftime("%T")} | status(server.pid) | {
            "files": len(os.listdir(f"/proc/{server.pid}/fd")),
            "processor_percent": round((after - before) / (now - before_at) * 100, 3),
            "load_percent": round((after_others - before_others) / (now - before_at) * 100, 3),
            "database_kib": size(DATABASE) // 1024, "wal_kib": size(f"{DATABASE}-wal") // 1024,
            "metric_lines": series, "open_streams": told["open_streams"], "pool": told["pool"],
        }
        before, before_at, before_others = after, now, after_others
        for name in ("flow", "refresh", "call", "registration", "revocation", "stream", "admin page", "scrape", "open stream"):
            told_of = operations.get(name, {})
            for what in ("done", "p50_us", "p99_us", "max_us", "failures", "skipped"):
                value = told_of.get(what)
                sample[f"{name} {what}"] = round(value) if value is not None else ""
            if told_of.get("first_failure"):
                troubles.append(f"{sample['at']} {name}: {told_of['failures']} times: {told_of['first_failure']}")
                with open(f"{WORK}/troubles.txt", "a") as file:
                    file.write(troubles[-1] + "\n")
        sample |= latest
        if writer is None:
            writer = csv.DictWriter(output, list(sample), extrasaction="ignore")
            writer.writeheader()
        writer.writerow(sample)
        output.flush()
        samples.append(sample)
    ended.set()
    if load.wait():
        troubles.append(f"the load ended with {load.returncode}: see {WORK}/load.log")
    report(samples, troubles)

# ---------------------------------------------------------------- the result

def report(samples, troubles):
    samples = [sample for sample in samples if sample["minutes"] * 60 > SETTLE]
    tenth = max(1, len(samples) // 10)
    first, last = samples[:tenth], samples[-tenth:]
    def median(part, name):
        values = [float(sample[name]) for sample in part if sample.get(name) not in ("", None)]
        return statistics.median(values) if values else None
    lines = [f"Minutes {first[0]['minutes']:.0f} to {first[-1]['minutes']:.0f} beside minutes {last[0]['minutes']:.0f} to "
             f"{last[-1]['minutes']:.0f}; medians of samples of {EVERY} s.", "", "| what | first tenth | last tenth | ratio |", "|---|---|---|---|"]
    for name in samples[0]:
        if name in ("minutes", "at") or name.endswith((" failures", " skipped")):
            continue
        a, b = median(first, name), median(last, name)
        if a is None or b is None:
            continue
        lines.append(f"| {name} | {a:,.6g} | {b:,.6g} | {f'{b / a:.3f}' if a else '–'} |")
    done = {name: sum(int(s[f"{name} done"] or 0) for s in samples) for name in
            ("flow", "refresh", "call", "registration", "revocation", "stream", "admin page", "scrape")}
    failed = sum(int(value or 0) for s in samples for name, value in s.items() if name.endswith(" failures"))
    skipped = sum(int(value or 0) for s in samples for name, value in s.items() if name.endswith(" skipped"))
    lines += ["", "Done: " + ", ".join(f"{count:,} {name}" for name, count in done.items()) + ".",
              f"Failures: {failed}; not begun because {256} were on their way: {skipped}.", ""]
    lines += [f"- {trouble}" for trouble in troubles[:50]]
    with open(f"{WORK}/result.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))

if sys.argv[0].endswith("soak.py"):
    main()
