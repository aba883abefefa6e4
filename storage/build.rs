//! Looks for ISA-L, one of the backends of the erasure code; without it the crate builds all the same.

use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(isal)");
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // What is installed here says nothing about another machine's libraries.
    if std::env::var("HOST") != std::env::var("TARGET") {
        return;
    }
    if let Some(flags) = flags_of("libisal") {
        for flag in flags.split_whitespace() {
            if let Some(directory) = flag.strip_prefix("-L") {
                println!("cargo::rustc-link-search=native={directory}");
            } else if let Some(library) = flag.strip_prefix("-l") {
                println!("cargo::rustc-link-lib={library}");
            }
        }
        println!("cargo::rustc-cfg=isal");
    }
}

/// What a linker is to be told about a library; nothing if pkg-config or the library is missing.
fn flags_of(library: &str) -> Option<String> {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args(["--libs", library]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
