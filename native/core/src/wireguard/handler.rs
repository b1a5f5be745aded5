//! The part of a device that the pump does not do itself: handshakes, timers, and packets without a peer or keypair.
//!
//! `threepipe.wireguard.routing.Handler` implements it.

use std::net::{IpAddr, SocketAddr};

use crate::io::datagrams::Arrival;
use crate::io::stop::Raised;

/// The destination of messages.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The address to send to.
    pub endpoint: SocketAddr,
    /// The local address to send from. None lets the system choose.
    pub local: Option<IpAddr>,
    /// The ECN field of their IP headers.
    pub ecn: u8,
}

/// The caller's code, which the pump's threads call. An error that it returns ends the pump.
pub trait Handler: Sync {
    /// Handle records that have no peer or cannot be sealed yet. With `vnet_header`, each has a virtio header.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn send(&self, records: &[&[u8]], vnet_header: bool) -> Result<(), Raised>;

    /// Keep sealed messages, each of `size` bytes but the last. They had no room when a bell rang.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn keep(&self, messages: &[u8], size: usize, target: Target) -> Result<(), Raised>;

    /// Handle datagrams, the last ones of `arrival`, and return the packets in them.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Vec<Vec<u8>>, Raised>;

    /// Do the work that is due for a peer, as messages are sent to it or received from it. Return when to call again.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn attend(&self, peer: u32, sending: bool) -> Result<f64, Raised>;
}
