//! Every fuzz target over its whole committed corpus: hand-made seeds, what hours of fuzzing reached, and
//! whatever once broke one. The targets are those of `fuzz/`, word for word.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../../../fuzz/src/targets/mod.rs"]
#[allow(
    unreachable_pub,
    clippy::redundant_pub_crate,
    clippy::missing_panics_doc,
    reason = "a library of their own elsewhere"
)]
mod targets;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_fuzz_target_holds_over_its_whole_corpus() {
    std::thread::scope(|scope| {
        for (name, target) in targets::ALL {
            scope.spawn(move || {
                let mut inputs: Vec<_> = fs::read_dir(fuzz().join("corpus").join(name))
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect();
                inputs.sort();
                assert!(inputs.len() >= 5, "{name} has {} inputs", inputs.len());
                for input in inputs {
                    let data = fs::read(&input).unwrap();
                    let held = catch_unwind(AssertUnwindSafe(|| target(&data)));
                    assert!(held.is_ok(), "{} breaks it", input.display());
                }
            });
        }
    });
}

#[test]
fn every_fuzz_target_has_a_binary_a_corpus_and_a_row_in_the_table() {
    let known: BTreeSet<String> = targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), known);
    assert_eq!(names(&fuzz().join("corpus")), known);
    let table = fs::read_to_string(fuzz().join("src/targets/mod.rs")).unwrap();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let documented = fs::read_to_string(fuzz().join("../docs/dev/fuzzing.md")).unwrap();
    for (number, (name, _)) in targets::ALL.iter().enumerate() {
        let row = format!("| F{} | [`{name}`] |", number + 1);
        assert!(table.contains(&row), "{row}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert!(documented.contains(&format!("| F{} | `{name}` |", number + 1)), "{name}");
    }
}
