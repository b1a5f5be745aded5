//! Router: where packets and messages go, by the addresses and indices in them (cryptokey routing), while they pass.
//!
//! A copy of what a `WireGuard` device knows of its peers, as far as passing messages needs it; who keeps the peers
//! keeps it up to date. Does no I/O.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::allowed_ips::AllowedIps;
use crate::traffic::Traffic;
use crate::transport::Transport;

/// The peers of a device by number.
#[derive(Default)]
pub struct Router {
    tables: RwLock<Tables>,
    /// Bytes beyond which packets are not padded; 0 for no limit.
    pub mtu: AtomicUsize,
    rejected: Mutex<BTreeMap<Rejected, u64>>,
}

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejected {
    /// Not authentic, or not new.
    Forged,
    /// From where the peer may not send from.
    Source,
    /// The system's error when it was sent.
    NotSent(i32),
}

/// What is looked up.
#[derive(Default)]
pub struct Tables {
    allowed: AllowedIps<u32>,
    peers: HashMap<u32, Arc<Peer>>,
    keypairs: HashMap<u32, Arc<Keypair>>,
}

/// A peer as it is now: a change makes another one.
pub struct Peer {
    /// By which its keeper knows it.
    pub number: u32,
    /// What passed it.
    pub traffic: Arc<Traffic>,
    /// By what is sent to it.
    pub sending: Option<Sending>,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// The address here that it last sent to.
    local: Mutex<Option<IpAddr>>,
    /// Of its keypairs.
    indices: Vec<u32>,
}

/// What is sent by.
pub struct Sending {
    /// Its keys.
    pub transport: Arc<Transport>,
    /// When it is over.
    pub until: f64,
    /// When its keeper wants to hear of it.
    pub attend_at: Moment,
}

/// What is received by.
pub struct Keypair {
    /// Its keys.
    pub transport: Arc<Transport>,
    /// Whose it is.
    pub peer: Arc<Peer>,
    /// When it is over.
    pub until: f64,
    /// When its keeper wants to hear of it.
    pub attend_at: Moment,
}

/// A time that changes: seconds of the monotonic clock.
pub struct Moment(AtomicU64);

impl Moment {
    /// At first.
    #[must_use]
    pub fn new(at: f64) -> Self {
        Self(AtomicU64::new(at.to_bits()))
    }

    /// As it is.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// From now on.
    pub fn set(&self, at: f64) {
        self.0.store(at.to_bits(), Ordering::Relaxed);
    }
}

impl Tables {
    /// The peer that `packet`, a whole IP packet, is for.
    #[must_use]
    pub fn destination(&self, packet: &[u8]) -> Option<&Arc<Peer>> {
        let address = match packet.first()? >> 4 {
            4 => IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?),
            _ => IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?),
        };
        self.peers.get(&self.allowed.find(address)?)
    }

    /// Whether the peer of that number may send from `address`.
    #[must_use]
    pub fn allows(&self, address: IpAddr, number: u32) -> bool {
        self.allowed.find(address) == Some(number)
    }

    /// By what messages for `index` are opened.
    #[must_use]
    pub fn keypair(&self, index: u32) -> Option<&Arc<Keypair>> {
        self.keypairs.get(&index)
    }

    fn forget(&mut self, number: u32) -> Option<Arc<Peer>> {
        let peer = self.peers.remove(&number)?;
        for index in &peer.indices {
            self.keypairs.remove(index);
        }
        Some(peer)
    }
}

impl Peer {
    /// The address here that the peer last sent to, from which it is answered; none where the system is to choose.
    #[must_use]
    pub fn local(&self) -> Option<IpAddr> {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set_local(&self, address: Option<IpAddr>) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// A keypair as [`Router::set_peer`] is told of it.
pub struct Key {
    /// Its keys.
    pub transport: Arc<Transport>,
    /// When it is over.
    pub until: f64,
    /// When its keeper wants to hear of it.
    pub attend_at: f64,
}

impl Router {
    /// Have a peer be as said from now on: what is sent to `endpoint` by `sending`, and received from there by
    /// `receiving`. It is sent from the address `local`, else from the one that the peer last sent to.
    pub fn set_peer(
        &self,
        number: u32,
        traffic: Arc<Traffic>,
        endpoint: Option<SocketAddr>,
        local: Option<IpAddr>,
        sending: Option<Key>,
        receiving: Vec<Key>,
    ) {
        let sending = sending.map(|key| Sending {
            transport: key.transport,
            until: key.until,
            attend_at: Moment::new(key.attend_at),
        });
        let mut tables = self.write();
        let before = tables.forget(number).filter(|peer| peer.endpoint == endpoint);
        let local = Mutex::new(local.or_else(|| before?.local()));
        let indices = receiving.iter().map(|key| key.transport.local_index()).collect();
        let peer = Arc::new(Peer { number, traffic, sending, endpoint, local, indices });
        for key in receiving {
            let Key { transport, until, attend_at } = key;
            let index = transport.local_index();
            let keypair = Keypair { transport, peer: Arc::clone(&peer), until, attend_at: Moment::new(attend_at) };
            tables.keypairs.insert(index, Arc::new(keypair));
        }
        tables.peers.insert(number, peer);
    }

    /// Give `networks`, and nothing else, to a peer, whoever had them.
    pub fn set_allowed(&self, number: u32, networks: Vec<(IpAddr, u8)>) {
        self.write().allowed.set(number, networks);
    }

    /// Forget a peer, but for what belongs to it.
    pub fn remove_peer(&self, number: u32) {
        self.write().forget(number);
    }

    /// What to look things up in; nobody changes it meanwhile.
    pub fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count what was dropped.
    pub fn reject(&self, reason: Rejected, count: u64) {
        if count > 0 {
            *self.counts().entry(reason).or_default() += count;
        }
    }

    /// What was dropped so far.
    pub fn rejected(&self) -> Vec<(Rejected, u64)> {
        self.counts().iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Rejected, u64>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
