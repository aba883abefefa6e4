//! `stele status`: every node side by side.

use anyhow::Result;
use stele_types::Height;

use crate::output::{Record, note};
use crate::session::Session;
use crate::standing::{NodeStanding, Roots, roots, standings};

/// Exit code when a node does not answer, is not ready, or nodes differ.
const EXIT_UNWELL: u8 = 1;
/// Digits of a root that the table shows.
const ROOT_DIGITS: usize = 16;

/// Shows where every node stands.
///
/// # Errors
/// When there is no network directory.
pub async fn run(session: &Session) -> Result<u8> {
    let standings = standings(session).await?;
    let common = roots(session, &standings).await?;
    let newest = standings.iter().filter_map(NodeStanding::height).max().unwrap_or(0);
    let mut records = Vec::new();
    for (index, standing) in standings.iter().enumerate() {
        let root = common.as_ref().and_then(|(_, roots)| roots[index]);
        records.push(record(session, standing, root, newest));
    }
    session.output.records(&records)?;
    let distinct = |roots: &[Option<Roots>]| {
        let first = roots.iter().flatten().next();
        roots.iter().flatten().any(|root| Some(root) != first)
    };
    let forked = common.as_ref().is_some_and(|(_, roots)| distinct(roots));
    if let Some((Height(height), _)) = common {
        let agree = if forked { "DIFFER: nodes hold different blocks" } else { "are equal" };
        session.output.text(&format!("\nRoots at height {height} {agree}."))?;
    }
    if forked {
        note("error[roots_differ]: the nodes do not hold the same chain; stop and compare their headers");
    }
    let well = !forked && standings.iter().all(|standing| standing.view.is_ok() && standing.not_ready.is_none());
    Ok(if well { 0 } else { EXIT_UNWELL })
}

fn record(session: &Session, standing: &NodeStanding, root: Option<Roots>, newest: u64) -> Record {
    let short = |hash: stele_types::Hash| {
        let text = hash.to_hex();
        if session.output.is_json() { text } else { text[..ROOT_DIGITS].to_owned() }
    };
    let view = standing.view.as_ref().ok();
    let state = match (&standing.view, &standing.not_ready) {
        (Err(code), _) => code.as_str(),
        (Ok(_), Some(reason)) => reason.as_str(),
        (Ok(_), None) => "ready",
    };
    Record::new()
        .with("node", standing.name.as_str())
        .with("state", state)
        .with_option("height", view.map(|view| view.height))
        .with_option("certified", view.map(|view| view.certified_height))
        .with_option("lag", view.map(|view| newest - view.height))
        .with_option("log_size", view.map(|view| view.log_size))
        .with_option("log_root", root.map(|root| short(root.log_root)))
        .with_option("state_root", root.map(|root| short(root.state_root)))
        .with_option("peers", standing.peers)
}
