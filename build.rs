//! Turns the board's sizes into constants, and, for the tests of the C ABI, generates the header
//! and compiles the C program that uses it.

use std::{env, fmt::Write, fs, path::PathBuf};

/// Name in the environment and in Rust, default, smallest and largest value.
const SIZES: [(&str, usize, usize, usize); 4] = [
    // Bytes read ahead of the parser; also how much a flooding broker can make us read.
    ("RX_BUFFER", 4096, 64, 1 << 20),
    // A PUBLISH up to this size is one write.
    ("TX_BUFFER", 4608, 64, 1 << 20),
    // Outgoing QoS 1 and 2 messages that wait for their acknowledgement.
    ("IN_FLIGHT", 16, 16, 4096),
    // Bytes of messages that are kept on the heap while a call waits for an acknowledgement.
    ("KEPT", 64 * 1024, 0, 1 << 24),
];

/// Stops the build, without a backtrace.
fn refuse(why: String) -> ! {
    eprintln!("umqtt: {why}");
    std::process::exit(1)
}

/// What the environment says, or nothing. A makefile keeps the space in front of a comment.
fn said(variable: &str) -> String {
    println!("cargo:rerun-if-env-changed={variable}");
    env::var(variable).unwrap_or_default().trim().to_string()
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let mut code = String::new();
    for (name, default, min, max) in SIZES {
        let variable = format!("UMQTT_{name}");
        let size = match said(&variable).as_str() {
            "" => default,
            text => text
                .parse()
                .unwrap_or_else(|_| refuse(format!("{variable}={text} is not a number"))),
        };
        if !(min..=max).contains(&size) {
            refuse(format!("{variable}={size} is not within {min}..={max}"));
        }
        writeln!(code, "pub const {name}: usize = {size};").unwrap();
    }
    let threads = match said("UMQTT_THREADS").as_str() {
        "" => "None",
        "0" => "Some(false)",
        "1" => "Some(true)",
        other => refuse(format!("UMQTT_THREADS={other} is neither 0 nor 1")),
    };
    // Does the port have threads? Known here, half a kilobyte of the other case is left out.
    writeln!(code, "pub const THREADS: Option<bool> = {threads};").unwrap();
    // Is there room for code that only saves time?
    println!("cargo::rustc-check-cfg=cfg(fast)");
    if !matches!(env::var("OPT_LEVEL").as_deref(), Ok("s" | "z")) {
        println!("cargo::rustc-cfg=fast");
    }
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    fs::write(out.join("config.rs"), code).unwrap();
    #[cfg(feature = "abi-check")]
    abi_check(&out);
}

/// `umqtt.h` and `libabi.a` for `tests/abi.rs`.
#[cfg(feature = "abi-check")]
fn abi_check(out: &std::path::Path) {
    for path in ["rust", "cbindgen.toml", "tests/abi"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let root = env::var("CARGO_MANIFEST_DIR").unwrap();
    cbindgen::generate(&root)
        .expect("cbindgen")
        .write_to_file(out.join("umqtt.h"));
    let mut program = cc::Build::new();
    program
        .file("tests/abi/abi.c")
        .include(out)
        .warnings_into_errors(true)
        .cargo_metadata(false)
        .compile("abi");
    // It links the program, too.
    let compiler = program.get_compiler();
    println!("cargo:rustc-env=UMQTT_CC={}", compiler.path().display());
}
