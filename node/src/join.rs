//! `steled join`: a node begins at a snapshot of the state instead of at genesis.
//!
//! It fetches from nodes that run and trusts none of them. A header of the network, verified from the genesis file on,
//! certifies the state, the log and the outcomes at the snapshot's height; everything that is fetched has to fit it, each
//! piece by itself, so what one node spoils comes from another. When all is there the chain's directory appears, and
//! `steled run` goes on from there as after any restart.

use std::path::PathBuf;

use clap::Args;
use stele_merkle::log::Frontier;
use stele_types::{Genesis, Outcome, cbor};
use stele_verify::TrustAnchor;

use crate::chain::{Adoption, JoinPoint};
use crate::config::Config;
use crate::fetch::{self, Fetched, Offer, Peers, Source};
use crate::node::read_genesis;

/// Begin at a snapshot of the state, fetched from nodes of the network, instead of at genesis
///
/// For a node that has no chain yet; keys, guards and configuration are in place already. The nodes that are asked are not
/// trusted: what they send is checked against a header that a quorum certified, from the genesis file on. State and log
/// are what they are on every other node; statements from before the snapshot are served by nodes that have them.
#[derive(Clone, Debug, Args)]
pub(crate) struct Join {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
    /// Where from
    #[command(flatten)]
    peers: Peers,
    /// Height of the snapshot [default: the newest that a node offers]
    #[arg(long)]
    height: Option<u64>,
}

impl Join {
    /// Joins.
    ///
    /// # Errors
    /// When no node offers a snapshot that a certified header vouches for, or a store fails. Nothing is left then but
    /// what the next try removes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let config = Config::load(&self.config)?;
        config.check(&self.config)?;
        let (genesis_bytes, genesis) = read_genesis(&config.node.genesis)?;
        let anchor = TrustAnchor::genesis(&genesis_bytes)?;
        let sources = self.peers.sources()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (point, fetched) = runtime.block_on(async {
            let adoption = Adoption::begin(&config.node.data_dir.join("chain"))?;
            let prove = async |source: &Source, offer: &Offer| prove(source, offer, &anchor).await;
            let begin = |offer: &Offer, point: &JoinPoint| anyhow::Ok(adoption.state(&genesis, point, offer.depth)?);
            let (point, fetched) = fetch::newest(&sources, self.height, prove, begin).await?;
            adoption.finish(genesis.network(), &point)?;
            anyhow::Ok((point, fetched))
        })?;
        self.say(&genesis, &point, &fetched);
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    fn say(&self, genesis: &Genesis, point: &JoinPoint, fetched: &Fetched) {
        let Fetched { pairs, bytes, elapsed } = fetched;
        println!("network       {}", genesis.network());
        println!("height        {}", point.height());
        println!("state root    {}", point.certifying.header.state_root.to_hex());
        println!("log size      {}", point.certifying.header.log_size);
        println!("state         {pairs} pairs, {bytes} bytes, in {:.1} s, every chunk verified", elapsed.as_secs_f64());
        println!("next          steled run --config {}", self.config.display());
    }
}

/// Everything but the state, checked against a header that is verified from genesis.
async fn prove(source: &Source, offer: &Offer, anchor: &TrustAnchor) -> anyhow::Result<JoinPoint> {
    let (client, height) = (&source.client, offer.height);
    let certifying = fetch::certified(client, height, anchor).await?;
    fetch::check_root(offer, &certifying)?;
    let (block, next) = (client.block(height).await?.block, client.block(height.next()).await?.block);
    let standpoint = client.standpoint(height).await?;
    let log_frontier =
        Frontier::decode(&hex::decode(&standpoint.log_frontier)?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let outcome = |text: &String| anyhow::Ok(cbor::from_slice::<Outcome>(&hex::decode(text)?)?);
    let outcomes = standpoint.outcomes.iter().map(outcome).collect::<anyhow::Result<_>>()?;
    let point = JoinPoint { certifying, block, next, log_frontier, outcomes };
    point.check()?;
    Ok(point)
}
