//! What threepipe does for every packet, without Python and without unsafe code.
//!
//! From the bottom up: [`checksum`]; [`record`], a packet behind a virtio header and what it stands for;
//! [`split`], a superpacket to packets; [`coalesce`], packets to superpackets; and where there are POSIX
//! descriptors `descriptor`, records read and written, and `pump`, the loop that moves them, of an `intake` and an
//! `outlet`.
//!
//! For `WireGuard`: [`sealing`], packets to messages and back; [`transport`], the keys that do it; [`traffic`], what
//! passed; [`allowed_ips`] and [`router`], for whom and from whom; and on Linux `datagrams`, `opener` and `tunnel`,
//! the loop between an adapter and UDP sockets.
//!
//! The Python modules of the same names, some of them in `threepipe.wireguard`, are the reference: results are the
//! same for all input, hostile input among it.

pub mod allowed_ips;
pub mod checksum;
pub mod coalesce;
#[cfg(target_os = "linux")]
pub mod datagrams;
#[cfg(unix)]
pub mod descriptor;
#[cfg(target_os = "linux")]
mod gate;
#[cfg(unix)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // Some of it only the tunnel wants.
mod intake;
#[cfg(target_os = "linux")]
pub mod opener;
#[cfg(unix)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // As above.
mod outlet;
#[cfg(unix)]
pub mod pump;
pub mod record;
pub mod router;
pub mod sealing;
#[cfg(target_os = "linux")]
mod sockets;
pub mod split;
pub mod traffic;
pub mod transport;
#[cfg(target_os = "linux")]
pub mod tunnel;
