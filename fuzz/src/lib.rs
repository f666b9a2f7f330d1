//! The fuzz targets, for the binaries of `fuzz_targets/`.

pub mod targets;
