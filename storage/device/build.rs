//! Looks for SPDK where the feature of that name is on. Without it the bindings are compiled all the same, for a check of
//! them wants no library, but nothing is linked and every such drive is refused.

use std::path::Path;
use std::process::Command;

/// Its NVMe driver, what stands between that and the system, and the system's libraries that both need.
const LIBRARIES: [&str; 3] = ["spdk_nvme", "spdk_env_dpdk", "spdk_syslibs"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(spdk)");
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // What is installed here says nothing about another machine's libraries.
    if std::env::var_os("CARGO_FEATURE_SPDK").is_none() || std::env::var("HOST") != std::env::var("TARGET") {
        return;
    }
    let Some(flags) = flags() else {
        println!("cargo::warning=pkg-config knows no SPDK ({}): drives of it will be refused", LIBRARIES.join(", "));
        return;
    };
    let directories: Vec<&str> = flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-L")).collect();
    for directory in &directories {
        println!("cargo::rustc-link-search=native={directory}");
    }
    for library in flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-l")) {
        let archive = format!("lib{library}.a");
        let own = library.starts_with("spdk_") || library.starts_with("rte_");
        if own && directories.iter().any(|directory| Path::new(directory).join(&archive).exists()) {
            // Transports and the like enter themselves into a list when they are loaded; nobody calls them by name.
            println!("cargo::rustc-link-lib=static:+whole-archive,-bundle={library}");
        } else {
            println!("cargo::rustc-link-lib={library}");
        }
    }
    println!("cargo::rustc-cfg=spdk");
}

/// What a linker is to be told; nothing if pkg-config or a library is missing.
fn flags() -> Option<String> {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args(["--libs", "--static"]).args(LIBRARIES).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
