//! Endpoints other than adapters, as ends of a pump: datagram sockets.
//!
//! The loop does what every bundle needs. All else, such as datagrams of strangers and errors of sending, goes to a
//! handler, which is the port in Python: its decisions and its messages are the same in both loops.

pub mod datagrams;
pub(crate) mod datagrams_intake;
pub(crate) mod datagrams_outlet;
