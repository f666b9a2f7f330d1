#!/usr/bin/env python3
"""How long each statement of clean-up takes on an SQLite database: they are read from the source, executed on a copy
in one transaction each, and rolled back. Usage: clean_up.py DATABASE [TEMPORARY FOLDER]"""

import os, re, shutil, sqlite3, sys, tempfile, time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
AFTER, IDLE = 86_400, 14 * 86_400

def statements():
    source = open(f"{HERE}/src/storage/retention.rs").read().split("#[cfg(test)]")[0]
    source += open(f"{HERE}/src/storage/connections/sessions.rs").read()
    for text in re.findall(r'"((?:DELETE FROM|SELECT s\.id FROM upstream_sessions)[^"]*)"', source):
        text = re.sub(r"\s+", " ", text)
        # Others have other arguments, and are for a full registry, a full database, or one row.
        if not re.search(r"id = \$2|ORDER BY|'configured'", text):
            yield text

def main():
    folder = tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None)
    try:
        original = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
        db = sqlite3.connect(f"{folder}/copy.db", isolation_level=None)
        original.backup(db)
        original.close()
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA cache_size = -16384; PRAGMA foreign_keys = ON")
        now, whole = int(time.time()), 0
        for text in statements():
            most = max(int(n) for n in re.findall(r"\$(\d)", text))
            arguments = [now - AFTER, 500, "%012x" % ((now - AFTER - IDLE) * 1000)]
            if text.startswith("DELETE FROM clients"):
                arguments = [now - AFTER, now - 90 * 86_400, now, 500]
            db.execute("BEGIN IMMEDIATE")
            before = time.perf_counter()
            done = db.execute(re.sub(r"\$(\d)", r"?\1", text), arguments[:most])
            rows = len(done.fetchall()) if "RETURNING" in text or text.startswith("SELECT") else done.rowcount
            took = (time.perf_counter() - before) * 1e3
            db.execute("ROLLBACK")
            inside = text.startswith("DELETE")
            whole += took if inside else 0
            print(f"{took:10.2f} ms {rows:5} rows  {'' if inside else '(outside a transaction) '}{text[:90]}")
        print(f"{whole:10.2f} ms in transactions, {os.path.getsize(f'{folder}/copy.db') / 1e6:.0f} MB")
    finally:
        shutil.rmtree(folder)

if __name__ == "__main__":
    main()
