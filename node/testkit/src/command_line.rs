//! The programs `stele` and `stele-verify` as people and scripts run them: arguments in, output and exit code out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::Cluster;

/// Longest run of one command: it gives up by itself long before.
const RUN_MAX: Duration = Duration::from_secs(150);

/// The programs, in one directory.
#[derive(Debug)]
pub struct CommandLine {
    programs: PathBuf,
    network_dir: Option<PathBuf>,
    working_dir: PathBuf,
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl CommandLine {
    /// The programs beside the daemon under test, for the network of `cluster`; they run in its directory.
    ///
    /// # Errors
    /// When one is missing.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let daemon = crate::cluster::steled()?;
        let programs = daemon.parent().context("directory of the programs")?.to_owned();
        for name in ["stele", "stele-verify"] {
            ensure!(
                programs.join(name).is_file(),
                "{name} is not in {}: build it with `cargo build -p stele-ctl --bins`",
                programs.display()
            );
        }
        let network_dir = cluster.session.network_dir.clone();
        Ok(Self { programs, network_dir, working_dir: cluster.directory().to_owned() })
    }

    /// The directory in which the programs run.
    pub fn working_dir(&self) -> &Path {
        &self.working_dir
    }

    /// Runs a program; `arguments` are separated by spaces.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub async fn run(&self, program: &str, arguments: &str) -> Result<Said> {
        let mut command = tokio::process::Command::new(self.programs.join(program));
        command.args(arguments.split_whitespace()).current_dir(&self.working_dir).stdin(Stdio::null());
        for variable in ["STELE_AS", "STELE_NODE", "STELE_PIN"] {
            command.env_remove(variable);
        }
        match &self.network_dir {
            Some(dir) => command.env("STELE_NETWORK_DIR", dir),
            None => command.env_remove("STELE_NETWORK_DIR"),
        };
        let output = tokio::time::timeout(RUN_MAX, command.kill_on_drop(true).output()).await;
        let output = output.with_context(|| format!("{program} {arguments} does not end"))?.context("start")?;
        Ok(Said {
            code: output.status.code().with_context(|| format!("{program} {arguments} was killed"))?,
            out: String::from_utf8(output.stdout).context("standard output")?,
            err: String::from_utf8(output.stderr).context("standard error")?,
        })
    }

    /// What `stele` prints for people; it has to succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn text(&self, arguments: &str) -> Result<String> {
        let said = self.run("stele", arguments).await?;
        ensure!(said.code == 0, "stele {arguments} ended with {}:\n{}{}", said.code, said.out, said.err);
        Ok(said.out)
    }

    /// What `stele` prints for programs; it has to succeed, and to print JSON and nothing else.
    ///
    /// # Errors
    /// As [`CommandLine::text`].
    pub async fn json(&self, arguments: &str) -> Result<Value> {
        self.json_with(arguments, 0).await
    }

    /// [`CommandLine::json`] of a command that ends with another exit code.
    ///
    /// # Errors
    /// As [`CommandLine::text`].
    pub async fn json_with(&self, arguments: &str, code: i32) -> Result<Value> {
        let said = self.run("stele", &format!("--output json {arguments}")).await?;
        ensure!(said.code == code, "stele {arguments} ended with {}:\n{}{}", said.code, said.out, said.err);
        serde_json::from_str(&said.out).with_context(|| format!("stele {arguments} printed no JSON:\n{}", said.out))
    }

    /// A command that has to fail with a code and a word on what to do, and prints no result.
    ///
    /// # Errors
    /// When it does otherwise.
    pub async fn refused(&self, arguments: &str, error: &str) -> Result<String> {
        let said = self.run("stele", arguments).await?;
        ensure!(said.code == 1, "stele {arguments} ended with {}:\n{}{}", said.code, said.out, said.err);
        ensure!(said.out.is_empty(), "stele {arguments} failed and printed a result:\n{}", said.out);
        ensure!(said.err.starts_with(&format!("error[{error}]: ")), "stele {arguments}, not {error}:\n{}", said.err);
        Ok(said.err)
    }

    /// A command that the ledger has to reject with a code: it prints the outcome and ends with 4.
    ///
    /// # Errors
    /// When it does otherwise.
    pub async fn rejected(&self, arguments: &str, outcome: &str) -> Result<Value> {
        let answer = self.json_with(arguments, 4).await?;
        ensure!(answer["outcome"] == outcome, "stele {arguments}, not {outcome}: {answer}");
        Ok(answer)
    }
}

/// A text in an answer.
///
/// # Errors
/// When there is none of that name.
pub fn text_of(answer: &Value, name: &str) -> Result<String> {
    match &answer[name] {
        Value::String(text) => Ok(text.clone()),
        other => bail!("{name} is {other} in {answer}"),
    }
}
