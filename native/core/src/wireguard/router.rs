//! Router: the peers of a device, for the routing of packets and messages. Does no I/O.
//!
//! A copy of the part of `threepipe.wireguard.tunnel` that forwarding needs; `threepipe.wireguard.routing` keeps it up
//! to date.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::locks::unpoisoned;
use crate::wireguard::allowed_ips::AllowedIps;
use crate::wireguard::next_hops::{Flow, NextHops};
use crate::wireguard::traffic::Traffic;
use crate::wireguard::transport::Transport;

/// The peers of a device, by number. Thread-safe.
#[derive(Default)]
pub struct Router {
    tables: RwLock<Tables>,
    mtu: AtomicUsize,
    rejected: Mutex<BTreeMap<Rejected, u64>>,
}

/// The reason why datagrams or packets were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejected {
    /// Not authentic, or a replay.
    Forged,
    /// The peer may not send from the source.
    Source,
    /// Marked for congestion on the way, but not ECN-capable.
    Congested,
    /// The system refused to send, with this errno.
    NotSent(i32),
}

/// The tables to look up peers and keypairs in.
#[derive(Default)]
pub struct Tables {
    routing: Routing,
    peers: HashMap<u32, Arc<Peer>>,
    receiving: HashMap<u32, Arc<Receiving>>,
}

/// The rules that choose a packet's peer, and the addresses from which a peer may send.
enum Routing {
    /// Cryptokey routing, by the allowed IPs of the peers.
    AllowedIps(AllowedIps<u32>),
    /// By the next hops of routes.
    NextHops(NextHops),
}

impl Default for Routing {
    fn default() -> Self {
        Self::AllowedIps(AllowedIps::default())
    }
}

/// A peer. It does not change, but for its local address: [`Router::set_peer`] replaces it.
pub struct Peer {
    /// Its number.
    pub number: u32,
    /// Its counters and times.
    pub traffic: Arc<Traffic>,
    /// The keypair that seals messages to it.
    pub sending: Option<Keypair>,
    /// The address to send to.
    pub endpoint: Option<SocketAddr>,
    local: Mutex<Option<IpAddr>>,
    /// The local indices of its keypairs.
    indices: Vec<u32>,
}

/// The keys that messages are sealed or opened with, and their times.
pub struct Keypair {
    /// The keys.
    pub transport: Arc<Transport>,
    /// The time when the keypair expires.
    pub expires_at: f64,
    /// The time of use from which the handler is told.
    pub attend_at: Moment,
}

/// A keypair that opens messages, and the peer they come from.
pub struct Receiving {
    /// The keypair.
    pub keypair: Keypair,
    /// The peer.
    pub peer: Arc<Peer>,
}

/// The settings of a peer, as [`Router::set_peer`] takes them.
pub struct PeerSettings {
    /// Its counters and times.
    pub traffic: Arc<Traffic>,
    /// The address to send to, and the only one to receive from.
    pub endpoint: Option<SocketAddr>,
    /// The local address to send from. Without it, the address that the peer last sent to is kept.
    pub local: Option<IpAddr>,
    /// The keypair that seals messages to it.
    pub sending: Option<Keypair>,
    /// The keypairs that open messages from it.
    pub receiving: Vec<Keypair>,
}

/// A time that can change: seconds of the clock of `wireguard::clock`.
pub struct Moment(AtomicU64);

impl Moment {
    /// Make one of value `at`.
    #[must_use]
    pub fn new(at: f64) -> Self {
        Self(AtomicU64::new(at.to_bits()))
    }

    /// Return the current value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Replace the value.
    pub fn set(&self, at: f64) {
        self.0.store(at.to_bits(), Ordering::Relaxed);
    }
}

impl Keypair {
    /// Make a keypair. Times are seconds of the clock of `wireguard::clock`.
    #[must_use]
    pub fn new(transport: Arc<Transport>, expires_at: f64, attend_at: f64) -> Self {
        Self { transport, expires_at, attend_at: Moment::new(attend_at) }
    }
}

impl Tables {
    /// Return the peer to send `packet` to, a whole IP packet.
    #[must_use]
    pub fn destination(&self, packet: &[u8]) -> Option<&Arc<Peer>> {
        let number = match &self.routing {
            Routing::AllowedIps(allowed) => allowed.find(match packet.first()? >> 4 {
                4 => IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?),
                _ => IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?),
            }),
            Routing::NextHops(hops) => hops.find(packet),
        };
        self.peers.get(&number?)
    }

    /// Return True if the peer of that number may send from `address`.
    #[must_use]
    pub fn allows(&self, address: IpAddr, number: u32) -> bool {
        match &self.routing {
            Routing::AllowedIps(allowed) => allowed.find(address) == Some(number),
            Routing::NextHops(hops) => hops.allows(address, number),
        }
    }

    /// Return the keypair that opens messages of the local index `index`.
    #[must_use]
    pub fn receiving(&self, index: u32) -> Option<&Arc<Receiving>> {
        self.receiving.get(&index)
    }

    fn remove(&mut self, number: u32) -> Option<Arc<Peer>> {
        let peer = self.peers.remove(&number)?;
        for index in &peer.indices {
            self.receiving.remove(index);
        }
        Some(peer)
    }
}

impl Peer {
    /// Return the local address to send from: the one the peer last sent to. None lets the system choose.
    #[must_use]
    pub fn local(&self) -> Option<IpAddr> {
        *unpoisoned(self.local.lock())
    }

    /// Replace the local address to send from.
    pub fn set_local(&self, address: Option<IpAddr>) {
        *unpoisoned(self.local.lock()) = address;
    }
}

impl Router {
    /// Make a router that finds peers by next hops (see `set_next_hops`), in place of their allowed IPs.
    #[must_use]
    pub fn by_next_hops() -> Self {
        let tables = Tables { routing: Routing::NextHops(NextHops::default()), ..Tables::default() };
        Self { tables: RwLock::new(tables), ..Self::default() }
    }

    /// Add a peer, or replace it.
    pub fn set_peer(&self, number: u32, settings: PeerSettings) {
        let PeerSettings { traffic, endpoint, local, sending, receiving } = settings;
        let mut tables = self.write();
        let previous = tables.remove(number).filter(|peer| peer.endpoint == endpoint);
        let local = Mutex::new(local.or_else(|| previous?.local()));
        let indices = receiving.iter().map(|keypair| keypair.transport.local_index()).collect();
        let peer = Arc::new(Peer { number, traffic, sending, endpoint, local, indices });
        for keypair in receiving {
            let index = keypair.transport.local_index();
            tables.receiving.insert(index, Arc::new(Receiving { keypair, peer: Arc::clone(&peer) }));
        }
        tables.peers.insert(number, peer);
    }

    /// Give `networks` to a peer in place of those it has, and take them from other peers.
    ///
    /// With next hops they are the networks that the peer may send from, and others keep theirs. It may send from its
    /// `link_local` address too; without one it is removed.
    pub fn set_allowed(&self, number: u32, networks: Vec<(IpAddr, u8)>, link_local: Option<Ipv6Addr>) {
        match (&mut self.write().routing, link_local) {
            (Routing::AllowedIps(allowed), _) => allowed.set(number, networks),
            (Routing::NextHops(hops), Some(address)) => hops.set(number, networks, address),
            (Routing::NextHops(hops), None) => hops.remove(number),
        }
    }

    /// Forget the next hops of destinations in the networks `changed`; then note those of some flows.
    pub fn set_next_hops(&self, changed: Vec<(IpAddr, u8)>, learned: Vec<(Flow, u32)>) {
        if let Routing::NextHops(hops) = &mut self.write().routing {
            hops.forget(changed);
            for (flow, number) in learned {
                hops.learn(flow, number);
            }
        }
    }

    /// Remove a peer but keep its networks: packets to them go to the handler.
    pub fn remove_peer(&self, number: u32) {
        self.write().remove(number);
    }

    /// Lock the tables for looking up.
    pub fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        unpoisoned(self.tables.read())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        unpoisoned(self.tables.write())
    }

    /// Return the bytes beyond which packets are not padded; 0 for no limit.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Set the bytes beyond which packets are not padded; 0 for no limit.
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Count datagrams or packets that were dropped.
    pub fn reject(&self, reason: Rejected, count: u64) {
        if count > 0 {
            *self.counts().entry(reason).or_default() += count;
        }
    }

    /// Return the counts of datagrams and packets dropped so far, by reason.
    pub fn rejected(&self) -> Vec<(Rejected, u64)> {
        self.counts().iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Rejected, u64>> {
        unpoisoned(self.rejected.lock())
    }
}
