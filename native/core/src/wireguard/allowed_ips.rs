//! Allowed IPs: the peer that an address belongs to, by the longest prefix.
//!
//! The twin of `threepipe.wireguard.allowed_ips`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// Prefixes of both families. Each belongs to one owner, the last to get it.
#[derive(Debug)]
pub struct AllowedIps<Owner> {
    /// For each family, its prefix lengths and their prefixes, the longest first.
    tables: [Vec<(u8, HashMap<u128, Owner>)>; 2],
    networks: HashMap<Owner, Vec<(IpAddr, u8)>>,
}

impl<Owner: Copy + Eq + Hash> Default for AllowedIps<Owner> {
    fn default() -> Self {
        Self { tables: [Vec::new(), Vec::new()], networks: HashMap::new() }
    }
}

impl<Owner: Copy + Eq + Hash> AllowedIps<Owner> {
    /// Give `networks` to `owner` in place of those it has, and take them from other owners.
    pub fn set(&mut self, owner: Owner, networks: Vec<(IpAddr, u8)>) {
        for (address, length) in self.networks.remove(&owner).unwrap_or_default() {
            let (family, number, bits) = parts(address);
            let table = &mut self.tables[family];
            if let Ok(index) = position(table, length) {
                let prefixes = &mut table[index].1;
                let prefix = prefix(number, bits, length);
                if prefixes.get(&prefix) == Some(&owner) {
                    prefixes.remove(&prefix);
                }
                if prefixes.is_empty() {
                    table.remove(index);
                }
            }
        }
        for (address, length) in &networks {
            let (family, number, bits) = parts(*address);
            let table = &mut self.tables[family];
            let index = position(table, *length).unwrap_or_else(|index| {
                table.insert(index, (*length, HashMap::new()));
                index
            });
            table[index].1.insert(prefix(number, bits, *length), owner);
        }
        if !networks.is_empty() {
            self.networks.insert(owner, networks);
        }
    }

    /// Return the owner of `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Owner> {
        let (family, number, bits) = parts(address);
        self.tables[family].iter().find_map(|(length, table)| table.get(&prefix(number, bits, *length)).copied())
    }
}

/// Return the index of the prefixes of that length, or the index where they belong.
fn position<T>(table: &[(u8, T)], length: u8) -> Result<usize, usize> {
    table.binary_search_by(|(other, _)| length.cmp(other))
}

/// Return the family, the number and the bits of an address.
fn parts(address: IpAddr) -> (usize, u128, u8) {
    match address {
        IpAddr::V4(address) => (0, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (1, address.to_bits(), 128),
    }
}

fn prefix(number: u128, bits: u8, length: u8) -> u128 {
    number.checked_shr(u32::from(bits.saturating_sub(length))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<(IpAddr, u8)> {
        let parse = |text: &&str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        texts.iter().map(parse).collect()
    }

    fn found(table: &AllowedIps<u32>, address: &str) -> Option<u32> {
        table.find(address.parse().unwrap())
    }

    #[test]
    fn find_returns_the_owner_of_the_longest_prefix() {
        let mut table = AllowedIps::default();
        table.set(1, networks(&["0.0.0.0/0", "::/0"]));
        table.set(2, networks(&["10.0.0.0/8", "fd00::/16"]));
        table.set(3, networks(&["10.1.0.0/16", "10.1.2.3/32", "fd00::1/128"]));
        for (address, owner) in [
            ("1.1.1.1", 1),
            ("10.2.0.1", 2),
            ("10.1.9.9", 3),
            ("10.1.2.3", 3),
            ("2001::1", 1),
            ("fd00::2", 2),
            ("fd00::1", 3),
        ] {
            assert_eq!(found(&table, address), Some(owner), "{address}");
        }
    }

    #[test]
    fn set_takes_a_prefix_from_its_previous_owner() {
        let mut table = AllowedIps::default();
        table.set(1, networks(&["10.0.0.0/8", "10.9.0.0/16"]));
        table.set(2, networks(&["10.0.0.0/8"]));
        table.set(1, networks(&["10.9.0.0/16"]));
        assert_eq!((found(&table, "10.1.1.1"), found(&table, "10.9.1.1")), (Some(2), Some(1)));
        table.set(2, Vec::new());
        assert_eq!((found(&table, "10.1.1.1"), found(&table, "10.9.1.1")), (None, Some(1)));
        table.set(1, Vec::new());
        assert!(table.tables.iter().all(Vec::is_empty) && table.networks.is_empty());
    }
}
