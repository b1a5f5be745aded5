//! The state of a datagram socket that both directions share, and the handler of what the loop does not do itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::io::datagrams::Arrival;
use crate::io::stop::Raised;
use crate::locks::unpoisoned;

/// The IP protocol number of UDP.
const UDP: u8 = 17;

/// The destination of datagrams. The twin of `Way` in `threepipe.core.ends`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The peer; None if the socket is connected to it.
    pub peer: Option<SocketAddr>,
    /// The local address that the peer sent to, from which it is answered.
    pub local: Option<IpAddr>,
    /// The form of these datagrams as packets.
    pub own: Option<Own>,
}

/// The datagrams of a socket, as IP packets. The twin of `OwnDatagrams` in `threepipe.endpoints.datagram_faults`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The bytes of addresses and ports.
    pub key: Vec<u8>,
    /// The offset of those bytes.
    pub start: usize,
    /// The offset of the protocol.
    pub protocol: usize,
}

impl Own {
    fn is(&self, packet: &[u8]) -> bool {
        packet.get(self.start..self.start + self.key.len()) == Some(&self.key) && packet[self.protocol] == UDP
    }
}

impl Way {
    /// Return True if a packet is a datagram of this very socket, which a route sent into the tunnel.
    pub(crate) fn is_own(&self, packet: &[u8]) -> bool {
        self.own.as_ref().is_some_and(|own| own.is(packet))
    }

    /// Return True if a run of datagrams arrived from the peer as before.
    pub(crate) fn is_of_peer(&self, arrival: &Arrival) -> bool {
        self.peer.is_none_or(|peer| peer == arrival.source) && self.local == arrival.local
    }
}

/// The present way, which the receiving direction may change. None if there is no peer yet.
pub struct Ways(Mutex<Option<Arc<Way>>>);

impl Ways {
    /// Begin with `way`.
    #[must_use]
    pub fn new(way: Option<Way>) -> Self {
        Self(Mutex::new(way.map(Arc::new)))
    }

    pub(crate) fn get(&self) -> Option<Arc<Way>> {
        unpoisoned(self.0.lock()).clone()
    }

    pub(crate) fn set(&self, way: Option<Way>) {
        *unpoisoned(self.0.lock()) = way.map(Arc::new);
    }
}

/// The packets that a handler found in datagrams, and the way from then on.
pub struct Received {
    /// The packets.
    pub packets: Vec<Vec<u8>>,
    /// The way from now on.
    pub way: Option<Way>,
}

/// The outcome of sending packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Packets that were sent, the first ones.
    pub sent: usize,
    /// Packets after those that can never be sent. There is no room for the others.
    pub dropped: usize,
}

/// The caller's code, which the pump's threads call. An error that it returns ends the pump.
pub trait Handler: Sync {
    /// Handle datagrams that are not all packets, or not of the peer.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Received, Raised>;

    /// Handle an error of receiving.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn receive_failed(&self, error: Errno) -> Result<(), Raised>;

    /// Send packets, the first of which could not be sent for `error`.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn send(&self, packets: &[&[u8]], error: Errno) -> Result<Sent, Raised>;

    /// Handle the socket's own datagrams, which came as packets to send and were dropped.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn dropped_own(&self) -> Result<(), Raised>;
}
