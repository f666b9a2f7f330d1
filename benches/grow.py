#!/usr/bin/env python3
"""How the database grows in a year, computed: the model of benches/year.rs, the rules of clean-up, and the measured
bytes of a row. No server runs. Usage: grow.py [PEOPLE [DAYS [REFRESHES [BYTES_OF_A_SESSION]]]]

REFRESHES: of one client on a day on which it is used (default 6, an hour of use). The table has a line for each 30 days."""

import random, sys
from collections import deque

PEOPLE, DAYS, REFRESHES, SESSION = (int(sys.argv[n]) if len(sys.argv) > n else default
                                    for n, default in ((1, 10_000), (2, 365), (3, 6), (4, 4_200)))
# Of a hundred pairs of person and client: how many, and used on how many of a thousand working days.
CLASSES = ((10, 900), (60, 200), (30, 30))
CLIENTS_EACH, OWN_CLIENT, APPLICATIONS = 2, 10, 30
USAGE_OF_A_DAY = 4  # two tools, in two hours each
TURNOVER = 100      # one in so many people leaves in a month, and another one comes
ABANDONED, DENIED, UNFINISHED, REFUSED, REVOKED = 100, 50, 30, 20, 10
IDLE, ABSOLUTE, KEPT = 14, 90, 1  # days: refresh_idle, refresh_absolute, and how long rows stay after their end
USAGE_ROWS, USAGE_DAYS = 1_000_000, 90
AUDIT_BYTES, AUDIT_DAYS = 1 << 30, 400
# Bytes of a row in an SQLite file, with its indexes: measured in the soak (benches/soak.sh; dbstat).
BYTES = {"refresh_tokens": 535, "upstream_sessions": SESSION, "grants": 725, "authorization_codes": 457, "logins": 1089,
         "consents": 122, "clients": 920, "people": 182, "people_words": 171, "usage_hours": 67, "usage_days": 129,
         "usage_keys": 389, "audit_events": 739}
WORDS = 7            # rows of people_words for a name of two words and an address
LINES_OF_A_FLOW = 4  # of the audit trail: page shown, approved, code issued, code redeemed

def main():
    draw = random.Random(1).random
    def pair():
        at, bound = draw() * 100, 0
        for share, used in CLASSES:
            bound += share
            if at < bound:
                return [used / 1000, None, None]  # use, last day of use, day of the sign-in
    pairs = [pair() for _ in range(PEOPLE * CLIENTS_EACH)]
    people, own = PEOPLE, PEOPLE * OWN_CLIENT // 100
    tokens, usage, audit = deque(), deque(), deque()  # (day, rows)
    ended = deque()
    month = [0, 0]
    print("| day | sign-ins | refreshes | MB | " + " | ".join(BYTES) + " |\n|" + "---|" * (len(BYTES) + 4))
    for day in range(DAYS):
        flows = refreshes = used_today = 0
        if day % 7 < 5:
            for one in pairs:
                if draw() >= one[0]:
                    continue
                used_today += 1
                if one[1] is None or day - one[1] >= IDLE or day - one[2] >= ABSOLUTE:
                    # The former grant lives until its absolute end, whether it can be used or not.
                    if one[2] is not None:
                        ended.append(one[2] + ABSOLUTE)
                    one[2], flows = day, flows + 1
                else:
                    refreshes += REFRESHES
                one[1] = day
        if day % 30 == 29:
            gone = PEOPLE // TURNOVER
            for _ in range(gone * CLIENTS_EACH):
                at = int(draw() * len(pairs))
                if pairs[at][2] is not None:
                    ended.append(pairs[at][2] + ABSOLUTE)
                pairs[at] = pair()
            people, own = people + gone, own + gone * OWN_CLIENT // 100
        for rows, made, kept in ((tokens, refreshes, IDLE + KEPT), (usage, used_today * USAGE_OF_A_DAY, USAGE_DAYS),
                                 (audit, flows * LINES_OF_A_FLOW + refreshes + ABANDONED + (DENIED + UNFINISHED) * 2
                                  + REFUSED * 3 + REVOKED, AUDIT_DAYS)):
            rows.append((day, made))
            while rows[0][0] <= day - kept:
                rows.popleft()
        live = sum(1 for one in pairs if one[2] is not None and day - one[2] < ABSOLUTE + KEPT)
        ended = deque(end for end in ended if end + KEPT > day)
        grants = live + len(ended)
        month[0], month[1] = month[0] + flows, month[1] + refreshes
        if (day + 1) % 30 == 0 or day + 1 == DAYS:
            usage_rows = min(USAGE_ROWS, sum(rows for _, rows in usage))
            count = {
                "refresh_tokens": grants + sum(rows for _, rows in tokens),
                "upstream_sessions": grants, "grants": grants, "authorization_codes": grants + UNFINISHED,
                "logins": UNFINISHED, "consents": flows + UNFINISHED + DENIED,
                "clients": APPLICATIONS + own + ABANDONED, "people": people, "people_words": people * WORDS,
                "usage_hours": usage_rows, "usage_days": usage_rows // 2,
                "usage_keys": min(usage_rows, PEOPLE * CLIENTS_EACH * 2),
                "audit_events": min(AUDIT_BYTES // BYTES["audit_events"], sum(rows for _, rows in audit)),
            }
            size = sum(BYTES[table] * rows for table, rows in count.items()) / 1e6
            print(f"| {day + 1} | {month[0]:,} | {month[1]:,} | {size:,.0f} | " + " | ".join(f"{rows:,}" for rows in count.values()) + " |")
            month = [0, 0]

if __name__ == "__main__":
    main()
