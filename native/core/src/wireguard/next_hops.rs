//! Next hops: the peer that packets with certain addresses go to next, as far as it is known, and what peers may send
//! from.
//!
//! A copy of a part of `threepipe.wireguard.next_hops`, which looks up the routes, and has them forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::wireguard::allowed_ips::AllowedIps;

/// The most flows that are known at once.
const MAX_KNOWN: usize = 1 << 16;

/// The addresses of a packet that decide about its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The source, with IPv6 alone.
    pub source: Option<Ipv6Addr>,
    /// The destination.
    pub destination: IpAddr,
}

/// The next hops that are known.
#[derive(Debug, Default)]
pub struct NextHops {
    known: HashMap<Flow, u32>,
    sources: HashMap<u32, Sources>,
}

/// The addresses that a peer may send from.
#[derive(Debug)]
struct Sources {
    link_local: Ipv6Addr,
    networks: AllowedIps<()>,
}

impl NextHops {
    /// Return the peer that is the next hop of `packet`, a whole IP packet, if that is known.
    #[must_use]
    pub fn find(&self, packet: &[u8]) -> Option<u32> {
        let flow = if packet.first()? >> 4 == 4 {
            Flow { source: None, destination: IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?) }
        } else {
            let source = Ipv6Addr::from(*packet.get(8..24)?.first_chunk::<16>()?);
            Flow { source: Some(source), destination: IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?) }
        };
        self.known.get(&flow).copied()
    }

    /// Note the peer that is the next hop of a flow.
    pub fn learn(&mut self, flow: Flow, number: u32) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(flow, number);
    }

    /// Forget the next hops of destinations in these networks.
    pub fn forget(&mut self, networks: Vec<(IpAddr, u8)>) {
        let mut changed = AllowedIps::default();
        changed.set((), networks);
        self.known.retain(|flow, _| changed.find(flow.destination).is_none());
    }

    /// Let a peer send from `networks` and from its link-local address, and from nothing else.
    pub fn set(&mut self, number: u32, networks: Vec<(IpAddr, u8)>, link_local: Ipv6Addr) {
        let mut allowed = AllowedIps::default();
        allowed.set((), networks);
        self.sources.insert(number, Sources { link_local, networks: allowed });
    }

    /// Let a peer send from nothing.
    pub fn remove(&mut self, number: u32) {
        self.sources.remove(&number);
    }

    /// Return True if the peer of that number may send from `address`.
    #[must_use]
    pub fn allows(&self, address: IpAddr, number: u32) -> bool {
        self.sources.get(&number).is_some_and(|sources| match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => address == sources.link_local,
            _ => sources.networks.find(address).is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_LOCAL: &str = "fe80::1";

    fn ipv6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn packet(source: &str, destination: &str) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8..24].copy_from_slice(&ipv6(source).octets());
        packet[24..].copy_from_slice(&ipv6(destination).octets());
        packet
    }

    fn flow(source: &str, destination: &str) -> Flow {
        Flow { source: Some(ipv6(source)), destination: IpAddr::V6(ipv6(destination)) }
    }

    #[test]
    fn find_returns_the_peer_of_the_packets_addresses_until_they_are_forgotten() {
        let mut hops = NextHops::default();
        hops.learn(flow("fd00::1", "fd00:1::1"), 3);
        hops.learn(flow("fd00::2", "fd00:1::1"), 4);
        hops.learn(flow("fd00::1", "fd00:2::1"), 5);
        hops.learn(Flow { source: None, destination: "10.0.0.9".parse().unwrap() }, 6);
        let mut ipv4 = vec![0; 20];
        ipv4[0] = 0x45;
        ipv4[16..].copy_from_slice(&[10, 0, 0, 9]);
        assert_eq!(hops.find(&packet("fd00::1", "fd00:1::1")), Some(3));
        assert_eq!(hops.find(&packet("fd00::2", "fd00:1::1")), Some(4));
        assert_eq!((hops.find(&packet("fd00::3", "fd00:1::1")), hops.find(&ipv4)), (None, Some(6)));
        hops.forget(vec![("fd00:1::".parse().unwrap(), 32), ("10.0.0.0".parse().unwrap(), 8)]);
        assert_eq!(hops.find(&packet("fd00::1", "fd00:1::1")), None);
        assert_eq!((hops.find(&packet("fd00::1", "fd00:2::1")), hops.find(&ipv4)), (Some(5), None));
    }

    #[test]
    fn find_in_a_truncated_header_returns_none() {
        assert_eq!((NextHops::default().find(&[]), NextHops::default().find(&[0x60; 39])), (None, None));
    }

    #[test]
    fn learn_of_too_many_flows_forgets_the_others() {
        let mut hops = NextHops::default();
        for index in 0..=MAX_KNOWN as u32 {
            hops.learn(Flow { source: None, destination: IpAddr::from(index.to_be_bytes()) }, 1);
        }
        assert_eq!(hops.known.len(), 1);
    }

    #[test]
    fn allows_takes_a_peers_networks_and_of_link_local_addresses_only_its_own() {
        let mut hops = NextHops::default();
        hops.set(1, vec![("::".parse().unwrap(), 0), ("10.0.0.0".parse().unwrap(), 8)], ipv6(LINK_LOCAL));
        hops.set(2, vec![("::".parse().unwrap(), 0)], ipv6("fe80::2"));
        for (address, number, allowed) in [
            ("fd00::1", 1, true),
            ("fd00::1", 2, true),
            ("10.1.1.1", 1, true),
            ("10.1.1.1", 2, false),
            (LINK_LOCAL, 1, true),
            (LINK_LOCAL, 2, false),
            ("fd00::1", 3, false),
        ] {
            assert_eq!(hops.allows(address.parse().unwrap(), number), allowed, "{address} of {number}");
        }
        hops.remove(1);
        assert!(!hops.allows("fd00::1".parse().unwrap(), 1));
    }
}
