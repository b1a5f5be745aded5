//! Packets, records and superpackets. Does no I/O and knows no files.

pub mod checksum;
pub mod coalesce;
pub mod ecn;
mod fields;
pub mod flow;
pub mod record;
pub mod split;
pub mod tunnel;
