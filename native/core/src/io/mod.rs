//! Files and UDP sockets: waiting for them, receiving bundles from them, and sending bundles to them.
//!
//! Top to bottom: the intake and the outlet of a TUN adapter (`tun_intake`, `tun_outlet`, and its `sink`); [`bundle`],
//! the form in which an intake passes packets to an outlet; `packets`, split for an outlet; `waiting`, for sources and
//! bells; `runs` and `datagrams` (Linux) and [`descriptor`], the system calls; [`counters`] and `stop`.

pub mod bundle;
pub mod counters;
#[cfg(target_os = "linux")]
pub mod datagrams;
pub mod descriptor;
#[cfg(target_os = "linux")]
pub(crate) mod packets;
#[cfg(target_os = "linux")]
pub(crate) mod runs;
mod sink;
pub(crate) mod stop;
pub(crate) mod tun_intake;
pub(crate) mod tun_outlet;
pub(crate) mod waiting;
