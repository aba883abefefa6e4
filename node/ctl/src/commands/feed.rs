//! `stele feed`: registered statements in log order.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::output::{Record, line};
use crate::session::Session;

/// How long one question waits for something new.
const FOLLOW_WAIT: Duration = Duration::from_secs(20);

/// Registered statements in log order: the acting party's own, or all for a regulator.
#[derive(Debug, Args)]
pub struct FeedArguments {
    /// First log index
    #[arg(long, default_value_t = 0)]
    pub cursor: u64,
    /// Statements at most, unless --follow
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Go on with what comes, one line each, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
}

impl FeedArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let client = session.party_client()?;
        if !self.follow {
            let page = client.feed(self.cursor, self.limit, Duration::ZERO).await?;
            let records: Vec<Record> = page
                .events
                .iter()
                .map(|event| {
                    Record::new()
                        .with("index", event.data.index)
                        .with("time", event.time.as_str())
                        .with("type", event.r#type.as_str())
                        .with("statement", event.id.as_str())
                        .with_option("object", event.data.object.as_deref())
                })
                .collect();
            session.output.records(&records)?;
            session.output.text(&format!("\nNext: --cursor {}", page.next))?;
            return Ok(0);
        }
        let mut cursor = self.cursor;
        loop {
            let page = client.feed(cursor, self.limit, FOLLOW_WAIT).await?;
            for event in &page.events {
                if session.output.is_json() {
                    line(&serde_json::to_string(event)?)?;
                } else {
                    line(&format!("{:>10}  {}  {:<20} {}", event.data.index, event.time, event.r#type, event.id))?;
                }
            }
            cursor = page.next;
        }
    }
}
