//! Endpoints other than adapters, as ends of a pump: datagram sockets, and streams of records.
//!
//! The loop does the work of every bundle. All else belongs to the port in Python, so that decisions and messages are
//! the same in both loops: a handler gets datagrams of strangers and errors of sending, and the loop stops for the end
//! of a stream and for records that are not packets.

pub mod datagrams;
pub(crate) mod datagrams_intake;
pub(crate) mod datagrams_outlet;
pub mod records;
pub(crate) mod records_intake;
pub(crate) mod records_outlet;
