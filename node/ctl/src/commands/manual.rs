//! `stele man` and `stele completions`: documents made from the command line itself.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::commands::Cli;
use crate::output::note;

/// Writes one man page for each command into `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn man(dir: &Path) -> Result<u8> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write man pages to {}", dir.display()))?;
    note(&format!("Man pages are in {}; read one with: man {}/stele.1", dir.display(), dir.display()));
    Ok(0)
}

/// Writes the completions of a shell to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn completions(shell: Shell) -> Result<u8> {
    // The generator panics where it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stele", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(0)
}
