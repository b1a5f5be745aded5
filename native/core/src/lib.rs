//! The per-packet work of threepipe, without Python and without unsafe code.
//!
//! The layers, top to bottom; each knows only those below it:
//!
//! - `pump`: the forwarding loop between two ends, with its threads and bells (POSIX).
//! - [`wireguard`]: cryptokey routing, transport keys and messages, and a device's peers as an end of the pump.
//! - `endpoints`: datagram sockets and streams as ends of the pump (Linux).
//! - `io`: files and UDP sockets: waiting for them, receiving bundles from them and sending to them (POSIX).
//! - [`packet`]: checksums, records, split and coalesce. Does no I/O.
//!
//! Modules with a twin in Python name it. The twin is the reference: results are the same for all input, hostile
//! input included.

#[cfg(target_os = "linux")]
pub mod endpoints;
#[cfg(unix)]
pub mod io;
mod locks;
pub mod packet;
#[cfg(unix)]
pub mod pump;
pub mod wireguard;
