# What scripts/release and scripts/test-packages share: the tools with their versions, and the steps from a program to
# the files that are handed out. For bash scripts to read, with $target set to the folder of the build.

cargo_deb=3.8.0
cargo_auditable=0.7.7
cargo_cyclonedx=0.5.9
cargo_zigbuild=0.24.1
zig=0.15.2
certifi=2026.10.19.post1 # root certificates of Mozilla, for the image
tools=$target/tools

# Installs these Debian packages where a command is missing: need COMMAND=PACKAGE ...
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || { echo "missing: ${missing[*]}; install them" >&2 && exit 2; }
    local sudo
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Installs a command of crates.io once, and puts it first on the PATH: cargo_tool NAME VERSION
cargo_tool() {
    local folder=$tools/$1-$2
    if [ ! -x "$folder/bin/$1" ]; then
        CARGO_TARGET_DIR=$folder/target cargo install --quiet --locked --root "$folder" --version "$2" "$1"
        rm -rf "$folder/target"
    fi
    PATH=$folder/bin:$PATH
}

# Installs a package of PyPI once, into a folder of its own: python_tool NAME PACKAGE ...
python_tool() {
    local folder=$tools/$1
    shift
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --no-deps "$@"
        touch "$folder/complete"
    fi
}

# Prints the file with the root certificates.
root_certificates() {
    python_tool "certifi-$certifi" "certifi==$certifi" >&2
    "$tools/certifi-$certifi/bin/python" -c 'import certifi; print(certifi.where())'
}

# The programs that are installed: the binaries of the crate.
programs() {
    cargo metadata --format-version 1 --no-deps --manifest-path "$1/Cargo.toml" |
        python3 -c 'import json, sys
for target in json.load(sys.stdin)["packages"][0]["targets"]:
    if target["kind"] == ["bin"]: print(target["name"])'
}

# Writes completions and man pages beside the sources, with a program that runs here: write_manual PROGRAM SOURCE
write_manual() {
    local program=$1 to=$2/packaging/generated
    rm -rf "$to"
    mkdir -p "$to/completions" "$to/man"
    "$program" completions bash >"$to/completions/portcullis.bash"
    "$program" completions zsh >"$to/completions/_portcullis"
    "$program" completions fish >"$to/completions/portcullis.fish"
    "$program" completions powershell >"$to/completions/portcullis.ps1"
    "$program" completions elvish >"$to/completions/portcullis.elv"
    "$program" man "$to/man"
}

# Makes the Debian package: make_deb SOURCE TO [option of cargo-deb ...]. The programs are in $CARGO_TARGET_DIR.
make_deb() {
    local source=$1 to=$2
    shift 2
    [ -z "${MAINTAINER:-}" ] || set -- "$@" --maintainer "$MAINTAINER"
    cargo deb --quiet --no-build --no-strip --locked --manifest-path "$source/Cargo.toml" --output "$to" "$@" >/dev/null
}

# Makes the archive of one architecture: make_archive SOURCE NAME PROGRAMS TO
make_archive() {
    local source=$1 name=$2 from=$3 to=$4 folder program
    folder=$(mktemp -d)
    mkdir -p "$folder/$name"
    for program in $(programs "$source"); do install -m 0755 "$from/$program" "$folder/$name/"; done
    (
        cd "$source"
        cp -r LICENSE README.md CHANGELOG.md portcullis.example.toml packaging/systemd/portcullis.service \
            packaging/generated/completions packaging/generated/man "$folder/$name/"
    )
    chmod -R u=rwX,go=rX "$folder"
    tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        -C "$folder" -cf - "$name" | gzip -9n >"$to/$name.tar.gz"
    rm -r "$folder"
}
