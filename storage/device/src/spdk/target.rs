//! Names of drives.

/// The drive that a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The controller, as SPDK reads it.
    pub(super) transport: String,
    /// The number of the namespace.
    pub(super) namespace: u32,
    /// Whether it is a device of this machine's bus, and not behind a network.
    pub(super) local: bool,
}

impl Target {
    /// Reads a name without its prefix; else what is wrong with it.
    pub(super) fn read(name: &str) -> Result<Self, &'static str> {
        let (mut words, mut namespace, mut transport) = (Vec::new(), None, None);
        for word in name.split_whitespace() {
            let Some((key, value)) = word.split_once(':') else {
                return Err("a transport id is made of words like traddr:0000:01:00.0");
            };
            match (key, namespace, transport) {
                ("ns", None, _) => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    namespace = Some(number.ok_or("the number of a namespace is 1 or more")?);
                    continue;
                }
                ("trtype", _, None) => transport = Some(value),
                ("ns" | "trtype", ..) => return Err("the name says twice which namespace or transport"),
                _ => {}
            }
            words.push(word);
        }
        let transport = transport.ok_or("a transport id says its trtype")?;
        let local = transport.eq_ignore_ascii_case("PCIe");
        Ok(Self { transport: words.join(" "), namespace: namespace.unwrap_or(1), local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let target = Target::read("trtype:PCIe  traddr:0000:01:00.0 ns:3").unwrap();
        let transport = "trtype:PCIe traddr:0000:01:00.0".to_owned();
        assert_eq!(target, Target { transport, namespace: 3, local: true });
        let network =
            Target::read("trtype:TCP adrfam:IPv4 traddr:10.0.0.1 trsvcid:4420 subnqn:nqn.2026-11.x:y").unwrap();
        assert_eq!((network.namespace, network.local), (1, false));
        assert!(network.transport.ends_with("subnqn:nqn.2026-11.x:y"));
    }

    #[test]
    fn names_that_mean_no_drive_are_refused() {
        for name in
            ["", "0000:01:00.0", "traddr:x", "trtype:PCIe ns:0", "trtype:PCIe ns:x", "trtype:PCIe ns:1 ns:2", "x"]
        {
            assert!(Target::read(name).is_err(), "{name}");
        }
    }
}
