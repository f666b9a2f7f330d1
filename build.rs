//! The version with the commit, and how the program is linked: with its relocations packed, where the system knows
//! how to read them. There are tens of thousands, and reading them at the start takes most of a megabyte of memory
//! otherwise.

use std::env;
use std::process::Command;

/// The first glibc that reads packed relocations.
const GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=BUILD_VERSION={}", version());
    let target = env::var("TARGET").unwrap_or_default();
    let here = env::var("HOST").is_ok_and(|host| host == target);
    // Who builds for another system knows what that one can read; we do not.
    if here && target.ends_with("-linux-gnu") && glibc().is_some_and(|found| found >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of the system's C library: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// The version that `--version` prints: `0.2.0 (1a2b3c4d5e6f 2026-11-29)`, with the commit and its date, so that
/// each build of a commit prints the same. A package without a repository names them in `BUILD_COMMIT`.
/// Debug builds leave the repository alone: they would compile everything again after each commit.
fn version() -> String {
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let named = env::var("BUILD_COMMIT").ok().filter(|named| !named.trim().is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    match named.or_else(|| if is_release { commit() } else { None }) {
        Some(commit) => format!("{version} ({})", commit.trim().replace(char::is_control, " ")),
        None => version,
    }
}

/// The commit of this repository and its date. `None` outside of a repository, and inside of another one.
fn commit() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if std::path::Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["log", "-1", "--abbrev=12", "--format=%h %cs"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    answer.status.success().then(|| text.trim().to_owned())
}
