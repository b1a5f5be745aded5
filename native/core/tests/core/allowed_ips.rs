//! Allowed IPs against a simple model: a list of prefixes, compared bit by bit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use threepipe_core::wireguard::allowed_ips::AllowedIps;

fn bits(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
}

/// Addresses of which few bits differ, so that prefixes overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    let sparse = |size: usize| vec(prop_oneof![4 => Just(0_u8), 1 => any::<u8>()], size);
    prop_oneof![
        sparse(4).prop_map(|bytes| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()))),
        sparse(16).prop_map(|bytes| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()))),
    ]
}

fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    (address(), 0_u8..=128).prop_map(|(address, length)| (address, length % (bits(address).len() as u8 + 1)))
}

proptest! {
    #[test]
    fn find_returns_the_last_owner_of_the_longest_prefix(
        given in vec((0_u32..4, vec(network(), 0..6)), 0..12),
        asked in vec(address(), 1..20),
    ) {
        let mut table = AllowedIps::default();
        let mut model: Vec<(Vec<bool>, bool, u32)> = Vec::new();
        for (owner, networks) in given {
            model.retain(|(_, _, other)| *other != owner);
            for (address, length) in &networks {
                let prefix = bits(*address)[..usize::from(*length)].to_vec();
                model.retain(|(other, ipv6, _)| *other != prefix || *ipv6 != address.is_ipv6());
                model.push((prefix, address.is_ipv6(), owner));
            }
            table.set(owner, networks);
        }
        for address in asked {
            let fits = |entry: &&(Vec<bool>, bool, u32)| {
                entry.1 == address.is_ipv6() && bits(address).starts_with(&entry.0)
            };
            let best = model.iter().filter(fits).max_by_key(|entry| entry.0.len());
            prop_assert_eq!(table.find(address), best.map(|entry| entry.2));
        }
    }
}
