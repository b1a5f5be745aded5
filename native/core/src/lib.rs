//! What threepipe does for every packet, without Python and without unsafe code.
//!
//! From the bottom up: [`checksum`]; [`record`], a packet behind a virtio header and what it stands for;
//! [`split`], a superpacket to packets; [`coalesce`], packets to superpackets; [`sealing`], packets to messages
//! of `WireGuard` and back; and where there are POSIX
//! descriptors `descriptor`, records read and written, and `pump`, the loop that moves them.
//!
//! The Python modules `threepipe.packet`, `offload`, `coalesce`, `sealing` and `descriptor` are the reference: results
//! are the same for all input, hostile input among it.

pub mod allowed_ips;
pub mod checksum;
pub mod coalesce;
#[cfg(target_os = "linux")]
pub mod datagrams;
#[cfg(unix)]
pub mod descriptor;
#[cfg(unix)]
pub mod pump;
pub mod record;
pub mod router;
pub mod sealing;
pub mod split;
pub mod traffic;
pub mod transport;
#[cfg(target_os = "linux")]
pub mod tunnel;
