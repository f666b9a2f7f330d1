#!/usr/bin/env python3
"""Writes the image as an OCI archive, without a container engine, and the same bytes each time.

Usage: packaging/image/oci.py ARCHIVE VERSION REVISION ARCHITECTURE=FOLDER ...

FOLDER is what packaging/image/root made. The configuration of the image is read from the Containerfile beside this
script, so that it is written once. SOURCE_DATE_EPOCH is the time of everything in it. HEALTHCHECK is written as Docker
and BuildKit write it into an OCI image: the specification does not know it, and other engines ignore it.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shlex
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

USER = 65532
TIME = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
NANOSECONDS = {"s": 10**9, "m": 60 * 10**9}


def instructions(text):
    """The instructions of a Containerfile, with continued lines joined."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def configuration(arguments):
    """What the Containerfile says of the container. An instruction that is not understood is an error."""
    file = Path(__file__).with_name("Containerfile")
    config = {"Env": [], "Labels": {}, "Volumes": {}, "ExposedPorts": {}}
    known = {}
    for name, rest in instructions(file.read_text()):
        filled = re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], found[0]), rest)
        match name:
            case "FROM":
                assert rest == "scratch", rest
            case "COPY":
                assert rest.endswith("${TARGETARCH}/root/ /") or rest == f"--chown={USER}:{USER} ${{TARGETARCH}}/owned/ /", rest
            case "ARG":
                key, _, default = rest.partition("=")
                known[key] = arguments.get(key, default)
            case "LABEL":
                config["Labels"].update(pair.split("=", 1) for pair in shlex.split(filled))
            case "ENV":
                config["Env"] += shlex.split(filled)
            case "USER":
                config["User"] = rest
            case "WORKDIR":
                config["WorkingDir"] = rest
            case "VOLUME":
                config["Volumes"][rest] = {}
            case "EXPOSE":
                config["ExposedPorts"][f"{rest}/tcp"] = {}
            case "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            case "CMD":
                config["Cmd"] = json.loads(rest)
            case "HEALTHCHECK":
                config["Healthcheck"] = healthcheck(rest)
            case _:
                sys.exit(f"{file}: {name} is not understood")
    return config


def healthcheck(text):
    options, command = text.split(" CMD ", 1)
    check = {"Test": ["CMD", *json.loads(command)]}
    for option in options.split():
        key, value = option.removeprefix("--").split("=")
        if key == "retries":
            check["Retries"] = int(value)
        else:
            name = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}[key]
            check[name] = int(value[:-1]) * NANOSECONDS[value[-1]]
    return check


def layer(folder):
    """All files as one tar, in the order of their names, with one time."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for top, owner in (("root", 0), ("owned", USER)):
            for path in sorted((folder / top).rglob("*")):
                entry = tar.gettarinfo(path, str(path.relative_to(folder / top)))
                entry.uid = entry.gid = owner
                entry.uname = entry.gname = ""
                entry.mtime = TIME
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as file:
                        tar.addfile(entry, file)
                else:
                    tar.addfile(entry)
    return raw.getvalue()


class Layout:
    """An OCI image layout in memory."""

    def __init__(self):
        self.files = {"oci-layout": json_bytes({"imageLayoutVersion": "1.0.0"})}

    def blob(self, kind, data, **more):
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def write(self, archive):
        with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(self.files):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(self.files[name]), TIME, 0o644
                tar.addfile(entry, io.BytesIO(self.files[name]))


def json_bytes(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def main():
    archive, version, revision, *folders = sys.argv[1:]
    created = datetime.fromtimestamp(TIME, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = configuration({"VERSION": version, "REVISION": revision})
    layout, manifests = Layout(), []
    for pair in folders:
        architecture, folder = pair.split("=", 1)
        tar = layer(Path(folder))
        packed = gzip.compress(tar, 9, mtime=0)
        diff = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        history = [{"created": created, "created_by": "packaging/image/oci.py"}]
        image = {
            "architecture": architecture, "os": "linux", "created": created, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff]}, "history": history,
        }
        of = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2, "mediaType": f"{of}.manifest.v1+json",
            "config": layout.blob(f"{of}.config.v1+json", json_bytes(image)),
            "layers": [layout.blob(f"{of}.layer.v1.tar+gzip", packed)],
        }
        platform = {"architecture": architecture, "os": "linux"}
        manifests.append(layout.blob(f"{of}.manifest.v1+json", json_bytes(manifest), platform=platform))
        print(f"linux/{architecture}: {len(packed) / 1e6:.1f} MB compressed, {len(tar) / 1e6:.1f} MB unpacked")
    index_kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": index_kind, "manifests": manifests}
    named = layout.blob(index_kind, json_bytes(index), annotations={"org.opencontainers.image.ref.name": version})
    layout.files["index.json"] = json_bytes({"schemaVersion": 2, "mediaType": index_kind, "manifests": [named]})
    layout.write(archive)


main()
