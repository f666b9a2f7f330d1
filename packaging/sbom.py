#!/usr/bin/env python3
"""The bill of materials of a release.

  sbom.py tidy FROM TO           leaves out what differs from build to build: serial number and paths
  sbom.py read PROGRAM           prints the list of crates that cargo-auditable wrote into a program
  sbom.py compare BILL PROGRAM   fails unless every crate that is linked into the program is in the bill
"""

import json
import os
import struct
import sys
import zlib
from datetime import datetime, timezone

SECTION = b".dep-v0"


def section(path, wanted):
    """The bytes of a section of a 64-bit little-endian ELF file."""
    data = open(path, "rb").read()
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{path} is no 64-bit little-endian ELF file")
    offset, = struct.unpack_from("<Q", data, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + size * n) for n in range(count)]
    names = headers[names_at][4]
    for name, _, _, _, at, length in headers:
        start = names + name
        if data[start : data.index(b"\0", start)] == wanted:
            return data[at : at + length]
    sys.exit(f"{path} has no section {wanted.decode()}")


def linked(path):
    """Name and version of each crate that is linked into a program."""
    packages = json.loads(zlib.decompress(section(path, SECTION)))["packages"]
    return {(package["name"], package["version"]) for package in packages if package.get("kind") != "build"}


def tidy(source, to):
    bill = json.load(open(source))
    bill.pop("serialNumber", None)
    at = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    bill["metadata"]["timestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    text = json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False)
    # References of crates that are built from a folder have its path.
    folder = os.path.dirname(os.path.abspath(source))
    open(to, "w").write(text.replace(folder, "/portcullis") + "\n")


def compare(bill_path, program):
    bill = json.load(open(bill_path))
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    own = bill["metadata"]["component"]
    crates = linked(program) - {(own["name"], own["version"])}
    missing = sorted(crates - listed)
    if missing or len(crates) < 50:
        sys.exit(f"{program} has {len(crates)} crates, and the bill of materials lacks {missing}")
    print(f"{program}: {len(crates)} crates, all of them in the bill of materials")


match sys.argv[1:]:
    case ["tidy", source, to]:
        tidy(source, to)
    case ["read", program]:
        print(json.dumps(sorted(linked(program))))
    case ["compare", bill, program]:
        compare(bill, program)
    case _:
        sys.exit(__doc__)
