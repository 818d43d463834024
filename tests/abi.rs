//! The C ABI: the checked-in header is the generated one, and a C program that uses it finds in
//! the archive what the header says.

#![cfg(feature = "abi-check")]

use std::{env, fs, path::Path, process::Command};

/// Where build.rs put the header and the C program.
const OUT: &str = env!("OUT_DIR");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

#[test]
fn header() {
    let path = Path::new(ROOT).join("micropython_mod/umqtt/umqtt.h");
    let generated = fs::read_to_string(Path::new(OUT).join("umqtt.h")).unwrap();
    if env::var_os("UMQTT_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap();
    assert!(
        generated == checked_in,
        "micropython_mod/umqtt/umqtt.h is not what rust/ffi.rs says. To refresh it:\n    \
         UMQTT_BLESS=1 cargo test --features abi-check --test abi"
    );
}

/// `outcome.c` has its texts in the order of the numbers, each with the name of its number.
#[test]
fn texts() {
    let folder = Path::new(ROOT).join("micropython_mod/umqtt");
    let header = fs::read_to_string(folder.join("umqtt.h")).unwrap();
    let source = fs::read_to_string(folder.join("outcome.c")).unwrap();
    for prefix in ["UMQTT_WHAT_", "UMQTT_MALFORMED_"] {
        let numbers: Vec<&str> = (header.lines())
            .map(|line| line.trim().split([' ', ',']).next().unwrap())
            .filter(|name| name.starts_with(prefix))
            .collect();
        let texts: Vec<(&str, &str)> = (source.lines())
            .filter_map(|line| line.trim().split_once(" // "))
            .filter(|(text, name)| text.starts_with('"') && name.starts_with(prefix))
            .collect();
        let names: Vec<&str> = texts.iter().map(|&(_, name)| name).collect();
        assert!(names.len() > 5 && numbers.starts_with(&names), "{names:?}");
        for (text, name) in texts {
            let is_last = text.ends_with(';');
            assert!(is_last || text.ends_with("\\0\""), "{name}: {text}");
            assert_eq!(text.matches("\\0").count(), usize::from(!is_last), "{name}");
        }
    }
}

#[test]
fn program() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archive");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(ROOT)
        .args(["rustc", "--quiet", "--lib", "--release"]);
    cargo.args([
        "--features",
        "archive",
        "--crate-type",
        "staticlib",
        "--target-dir",
    ]);
    run(cargo.arg(&target));
    let program = target.join("abi");
    // Only that the whole program is linked: `main` lies in the first archive.
    let mut compiler = Command::new(env!("UMQTT_CC"));
    compiler
        .arg(Path::new(OUT).join("libabi.a"))
        .arg(target.join("release/libumqtt.a"));
    run(compiler.arg("-o").arg(&program));
    let output = run(&mut Command::new(&program));
    assert!(output.ends_with("all passed\n"), "{output}");
}
