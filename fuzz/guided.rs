//! The targets of `src/fuzzing.rs` for libFuzzer. `fuzz/run --guided` builds and runs it.
//!
//! `EVENKEEL_FUZZ` names the target. With `EVENKEEL_FUZZ_CORPUS`, the program first writes the
//! seeds of the target to this folder. With `EVENKEEL_FUZZ_INPUT`, it only prints this file as a
//! line for `fuzz/seeds`.

#![no_main]

use std::path::Path;
use std::process::exit;
use std::sync::LazyLock;
use std::{env, fs, io};

use evenkeel::fuzzing::{self, TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = env::var("EVENKEEL_FUZZ").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == wanted).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("EVENKEEL_FUZZ={wanted}: no such target; targets: {}", names.join(" "));
        exit(2)
    })
});

fuzz_target!(
    init: if let Err(error) = prepare() {
        eprintln!("{error}");
        exit(2)
    },
    |input: &[u8]| (TARGET.check)(input)
);

fn prepare() -> io::Result<()> {
    if let Some(file) = env::var_os("EVENKEEL_FUZZ_INPUT") {
        println!("{}", fuzzing::escaped(&fs::read(file)?));
        exit(0);
    }
    let corpus = fuzzing::corpus(&TARGET)?;
    if let Some(folder) = env::var_os("EVENKEEL_FUZZ_CORPUS") {
        for (index, seed) in corpus.iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}
