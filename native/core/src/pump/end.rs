//! The kinds of ends that a pump forwards between.

use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

#[cfg(target_os = "linux")]
use crate::endpoints::{
    datagrams::{Handler as DatagramsHandler, Ways},
    datagrams_intake::DatagramsIntake,
    datagrams_outlet::DatagramsOutlet,
    records::{Handler as RecordsHandler, Stream},
    records_intake::RecordsIntake,
    records_outlet::RecordsOutlet,
};
use crate::io::bundle::{Intake, Outlet};
use crate::io::counters::Counters;
use crate::io::tun_intake::TunIntake;
use crate::io::tun_outlet::{Format, TunOutlet};
use crate::io::waiting::RoomWait;
#[cfg(target_os = "linux")]
use crate::wireguard::{handler::Handler, peers_intake::PeersIntake, peers_outlet::PeersOutlet, router::Router};

/// One of the two ends of a pump.
#[derive(Clone, Copy)]
pub enum End<'a> {
    /// An adapter.
    Tun(TunEnd<'a>),
    /// The peers of a `WireGuard` device.
    #[cfg(target_os = "linux")]
    Peers(PeersEnd<'a>),
    /// A datagram socket.
    #[cfg(target_os = "linux")]
    Datagrams(DatagramsEnd<'a>),
    /// A stream of records.
    #[cfg(target_os = "linux")]
    Records(RecordsEnd<'a>),
}

/// The files of an adapter, which are non-blocking. The twin of `TunEnd` in `threepipe.core.ends`.
#[derive(Clone, Copy)]
pub struct TunEnd<'a> {
    /// The files to receive records from.
    pub sources: &'a [BorrowedFd<'a>],
    /// The file to send records to.
    pub target: BorrowedFd<'a>,
    /// True if records have a virtio header, false if they are packets.
    pub vnet_header: bool,
    /// True if those headers are wide in the files (see `packet::tunnel`).
    pub wide: bool,
    /// True if the target accepts superpackets of UDP as well as those of TCP.
    pub udp: bool,
    /// True while the target accepts superpackets. The pump clears it when one is refused.
    pub coalescing: &'a AtomicBool,
    /// Records for the target that waited for room when a bell rang, which are neither counted as sent nor dropped.
    pub kept: &'a Mutex<Vec<Vec<u8>>>,
    /// Counters of the packets received from the sources.
    pub received: Counters<'a>,
    /// Counters of the packets sent to the target.
    pub sent: Counters<'a>,
}

/// The peers of a device, behind its UDP sockets. The twin of `PeersEnd` in `threepipe.core.ends`.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub struct PeersEnd<'a> {
    /// The peers and their keypairs.
    pub router: &'a Router,
    /// At most one socket of each family.
    pub sockets: &'a [BorrowedFd<'a>],
    /// The part of the device that the pump does not do itself.
    pub handler: &'a dyn Handler,
    /// Counters of the packets received from peers.
    pub received: Counters<'a>,
    /// Counters of the packets sent to peers.
    pub sent: Counters<'a>,
}

/// A datagram socket, which is non-blocking. The twin of `DatagramsEnd` in `threepipe.core.ends`.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub struct DatagramsEnd<'a> {
    /// The socket.
    pub socket: BorrowedFd<'a>,
    /// The same socket, to receive from.
    pub sources: &'a [BorrowedFd<'a>],
    /// The destination, which may change.
    pub ways: &'a Ways,
    /// The part of the endpoint that the pump does not do itself.
    pub handler: &'a dyn DatagramsHandler,
    /// The packets for this end that waited for room when the pump ended, neither sent nor dropped.
    pub kept: &'a Mutex<Vec<Vec<u8>>>,
    /// Counters of the packets received.
    pub received: Counters<'a>,
    /// Counters of the packets sent.
    pub sent: Counters<'a>,
}

/// A stream of records, non-blocking. The twin of `RecordsEnd` in `threepipe.core.ends`.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub struct RecordsEnd<'a> {
    /// The file to read from, once.
    pub sources: &'a [BorrowedFd<'a>],
    /// The file to write to.
    pub target: BorrowedFd<'a>,
    /// Its bytes on their way.
    pub stream: &'a Stream,
    /// Reads and writes if the files have encrypted bytes.
    pub handler: Option<&'a dyn RecordsHandler>,
    /// Counters of the packets received.
    pub received: Counters<'a>,
    /// Counters of the packets sent.
    pub sent: Counters<'a>,
}

impl<'a> End<'a> {
    /// Return True for an adapter.
    pub(super) fn is_tun(&self) -> bool {
        matches!(self, Self::Tun(_))
    }

    /// Return the files to wait for.
    pub(super) fn sources(&self) -> &'a [BorrowedFd<'a>] {
        match self {
            Self::Tun(end) => end.sources,
            #[cfg(target_os = "linux")]
            Self::Peers(end) => end.sockets,
            #[cfg(target_os = "linux")]
            Self::Datagrams(end) => end.sources,
            #[cfg(target_os = "linux")]
            Self::Records(end) => end.sources,
        }
    }

    /// Return the receiving side. Its bundles have at most `size` bytes, if they are an adapter's.
    pub(super) fn intake(&self, size: usize) -> Box<dyn Intake + 'a> {
        match self {
            Self::Tun(end) => Box::new(TunIntake::new(end.vnet_header, end.wide, end.received, size)),
            #[cfg(target_os = "linux")]
            Self::Peers(end) => Box::new(PeersIntake::new(end.router, end.handler, end.received)),
            #[cfg(target_os = "linux")]
            Self::Datagrams(end) => Box::new(DatagramsIntake::new(end.ways, end.handler, end.received)),
            #[cfg(target_os = "linux")]
            Self::Records(end) => Box::new(RecordsIntake::new(end.stream, end.handler, end.received)),
        }
    }

    /// Return the sending side.
    pub(super) fn outlet(&self, room: RoomWait<'a>) -> Box<dyn Outlet + 'a> {
        match self {
            Self::Tun(end) => {
                let TunEnd { vnet_header, wide, udp, coalescing, .. } = *end;
                let format = Format { vnet_header, wide, udp, coalescing };
                Box::new(TunOutlet::new(end.target, format, end.sent, room, end.kept))
            }
            #[cfg(target_os = "linux")]
            Self::Peers(end) => Box::new(PeersOutlet::new(end.router, end.handler, end.sent, end.sockets, room)),
            #[cfg(target_os = "linux")]
            Self::Datagrams(end) => {
                Box::new(DatagramsOutlet::new(end.socket, end.ways, end.handler, end.sent, room, end.kept))
            }
            #[cfg(target_os = "linux")]
            Self::Records(end) => Box::new(RecordsOutlet::new(end.target, end.stream, end.handler, end.sent, room)),
        }
    }
}
