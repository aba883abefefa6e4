//! Nodes in network namespaces of their own, on bridges that can be split. Needs root and `ip` of iproute2.
//!
//! Each node has a namespace and a link to bridge 0. To split the network, links move to bridge 1: what crosses is lost
//! without an answer, as in a real split. The test itself has an address on both bridges.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The test's own address.
const SELF: &str = "10.177.0.254";

/// Namespaces, links and bridges; all are removed when it is dropped.
pub struct Namespaces {
    /// Makes names unique on this machine; interface names have 15 bytes at most.
    tag: String,
    nodes: usize,
}

impl Namespaces {
    /// Makes a namespace for each of `nodes` nodes.
    ///
    /// # Errors
    /// When `ip` is missing or not permitted: such a test cannot run, and says so.
    pub fn create(nodes: usize) -> Result<Self> {
        let made = Self { tag: format!("st{}", std::process::id() % 100_000), nodes };
        let needs = "a network split needs network namespaces: run the test as root with iproute2 installed";
        for side in 0..2 {
            let bridge = made.bridge(side);
            ip(&format!("link add {bridge} type bridge")).context(needs)?;
            ip(&format!("link set {bridge} up"))?;
        }
        ip(&format!("address add {SELF}/24 dev {}", made.bridge(0)))?;
        ip(&format!("address add {SELF}/32 dev {}", made.bridge(1)))?;
        for node in 0..nodes {
            let (name, link) = (made.name(node), made.link(node));
            ip(&format!("netns add {name}")).context(needs)?;
            ip(&format!("link add {link} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {link} master {} up", made.bridge(0)))?;
            ip(&format!("-n {name} address add {}/24 dev eth0", Self::address(node)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(made)
    }

    /// Address of a node.
    pub fn address(node: usize) -> String {
        format!("10.177.0.{}", node + 1)
    }

    /// A command that runs `program` in a node's namespace, under the process id that it gets.
    pub fn command(&self, node: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(node)]).arg(program);
        command
    }

    /// Puts `minority` on a bridge of its own: no packet passes between it and the others.
    ///
    /// # Errors
    /// When a link cannot be moved.
    pub fn split(&self, minority: &[usize]) -> Result<()> {
        minority.iter().try_for_each(|node| {
            ip(&format!("link set {} master {}", self.link(*node), self.bridge(1)))?;
            ip(&format!("route replace {}/32 dev {} src {SELF}", Self::address(*node), self.bridge(1)))
        })
    }

    /// Puts every node back on one bridge.
    ///
    /// # Errors
    /// When a link cannot be moved.
    pub fn heal(&self, minority: &[usize]) -> Result<()> {
        minority.iter().try_for_each(|node| {
            ip(&format!("link set {} master {}", self.link(*node), self.bridge(0)))?;
            ip(&format!("route delete {}/32 dev {}", Self::address(*node), self.bridge(1)))
        })
    }

    fn name(&self, node: usize) -> String {
        format!("{}n{node}", self.tag)
    }
    fn link(&self, node: usize) -> String {
        format!("{}v{node}", self.tag)
    }
    fn bridge(&self, side: usize) -> String {
        format!("{}b{side}", self.tag)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let _ = ip(&format!("link delete {}", self.link(node)));
            let _ = ip(&format!("netns delete {}", self.name(node)));
        }
        for side in 0..2 {
            let _ = ip(&format!("link delete {}", self.bridge(side)));
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
