//! `WireGuard`: the routing of packets to peers, keys and messages, and a device's peers as an end of the pump.
//!
//! Top to bottom: on Linux the peers' intake and outlet (`peers_intake`, `peers_outlet`), with `opener` and `sockets`;
//! `handler`, the caller's part of the work; [`router`], the tables to look up in, with [`allowed_ips`] or [`next_hops`]; [`transport`],
//! the keys of a keypair, and [`traffic`], a peer's counters and times; [`sealing`], packets to messages and back.
//! Only `peers_intake` and `sockets` do I/O. Handshakes are the caller's.

pub mod allowed_ips;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
pub mod handler;
pub mod next_hops;
#[cfg(target_os = "linux")]
pub mod opener;
#[cfg(target_os = "linux")]
pub(crate) mod peers_intake;
#[cfg(target_os = "linux")]
pub(crate) mod peers_outlet;
pub mod router;
pub mod sealing;
#[cfg(target_os = "linux")]
mod sockets;
pub mod traffic;
pub mod transport;
