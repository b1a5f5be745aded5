//! Datagrams: of UDP in runs (`UDP_SEGMENT`, `UDP_GRO`), with the addresses at both ends, and of other sockets.
//!
//! The owner of a socket sets its options. The counterpart of `threepipe.net.datagrams`.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, getsockname, recvmmsg,
    recvmsg, sendmmsg,
};
use rustix::io::Errno;

/// The most bytes of a run that `UDP_GRO` hands over.
pub const LONGEST_RUN: usize = 0xFFFF;
/// The most datagrams that every kernel accepts in a run to send (`UDP_SEGMENT`, `UDP_MAX_SEGMENTS`).
pub(crate) const MAX_SEGMENTS: usize = 64;
/// The most bytes in a run to send, with space left for the headers of IP and UDP.
pub(crate) const MAX_RUN: usize = 65_000;
/// The address of senders that have none.
const UNSPECIFIED: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
/// The bits of ECN in the byte that it shares with DSCP.
const ECN: u8 = 3;

/// A run of datagrams that was received from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of the run.
    pub bytes: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub size: usize,
    /// The sender's address; unspecified if the socket is not of UDP.
    pub source: SocketAddr,
    /// The local address it was sent to, if the socket reports it (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
    pub local: Option<IpAddr>,
    /// The ECN field of the IP header, if the socket reports it (`IP_RECVTOS`, `IPV6_RECVTCLASS`); else 0.
    pub ecn: u8,
}

/// Receive the runs that are ready, each to the start of one of `buffers` of at least [`LONGEST_RUN`] bytes.
///
/// One system call. Returns fewer runs than buffers if no more are ready.
///
/// # Errors
///
/// Return the system's error if no run was received. It may be the error of a datagram that was sent before.
pub fn receive(socket: BorrowedFd<'_>, buffers: Vec<&mut [u8]>) -> Result<Vec<Arrival>, Errno> {
    let room = cmsg_space!(i32, in_pktinfo, in6_pktinfo, i32);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(buffers.len(), Some(room));
    let mut slices: Vec<_> = buffers.into_iter().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None);
    received.map(|received| received.map(|run| arrival(&run)).collect()).map_err(errno)
}

/// Empty the queue in which the kernel keeps the errors that the socket reports (`IP_RECVERR`): it wakes waiters while
/// it holds one.
pub fn forget_errors(socket: BorrowedFd<'_>) {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    while recvmsg::<()>(socket.as_raw_fd(), &mut [], None, flags).is_ok() {}
}

fn arrival(run: &RecvMsg<'_, '_, SockaddrStorage>) -> Arrival {
    let source = run.address.as_ref().and_then(address_of).unwrap_or(UNSPECIFIED);
    let mut arrival = Arrival { bytes: run.bytes, size: run.bytes, source, local: None, ecn: 0 };
    for message in run.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::UdpGroSegments(size) => {
                arrival.size = usize::try_from(size).unwrap_or(arrival.bytes).max(1);
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                arrival.local = Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => arrival.local = Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            ControlMessageOwned::Ipv4Tos(byte) => arrival.ecn = byte & ECN,
            ControlMessageOwned::Ipv6TClass(byte) => arrival.ecn = byte.to_le_bytes()[0] & ECN,
            _ => {}
        }
    }
    arrival
}

/// Send runs of datagrams, each to its target (None: the socket's peer). Return how many were sent, which may be fewer.
///
/// One system call. A run is sent as a whole or not at all. Its datagrams have `size` bytes each but the last; without
/// `size` a run is one datagram. All are sent from the address `local`, or from one that the system chooses, with `ecn`
/// in their IP headers.
///
/// # Errors
///
/// Return the system's error if the first run could not be sent.
pub fn send(
    socket: BorrowedFd<'_>,
    runs: &[(&[u8], Option<SocketAddr>)],
    size: Option<u16>,
    local: Option<IpAddr>,
    ecn: u8,
) -> Result<usize, Errno> {
    let (four, six);
    let traffic_class = i32::from(ecn);
    let mut messages = Vec::with_capacity(3);
    if let Some(size) = &size {
        messages.push(ControlMessage::UdpGsoSegments(size));
    }
    match local {
        Some(IpAddr::V4(address)) => {
            let ipi_spec_dst = in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            four = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
            messages.push(ControlMessage::Ipv4PacketInfo(&four));
        }
        Some(IpAddr::V6(address)) => {
            six = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 };
            messages.push(ControlMessage::Ipv6PacketInfo(&six));
        }
        None => {}
    }
    if ecn > 0 {
        let ipv6 = matches!(runs, [(_, Some(target)), ..] if target.is_ipv6());
        messages.push(if ipv6 { ControlMessage::Ipv6TClass(&traffic_class) } else { ControlMessage::Ipv4Tos(&ecn) });
    }
    // The exact size: the system rejects control messages that end before their memory does.
    let room = match (size, local) {
        (None, None) => Vec::new(),
        (None, Some(IpAddr::V4(_))) => cmsg_space!(in_pktinfo),
        (None, Some(IpAddr::V6(_))) => cmsg_space!(in6_pktinfo),
        (Some(_), None) => cmsg_space!(u16),
        (Some(_), Some(IpAddr::V4(_))) => cmsg_space!(u16, in_pktinfo),
        (Some(_), Some(IpAddr::V6(_))) => cmsg_space!(u16, in6_pktinfo),
    };
    let room = if ecn > 0 { vec![0; room.len() + cmsg_space!(i32).len()] } else { room };
    let room = (!room.is_empty()).then_some(room);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(runs.len(), room);
    let slices: Vec<_> = runs.iter().map(|(run, _)| [IoSlice::new(run)]).collect();
    let targets: Vec<_> = runs.iter().map(|(_, target)| target.map(SockaddrStorage::from)).collect();
    sendmmsg(socket.as_raw_fd(), &mut headers, &slices, targets, messages, MsgFlags::MSG_DONTWAIT)
        .map(Iterator::count)
        .map_err(errno)
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// Return True if `socket` is of IP, whose datagrams can go in runs.
#[must_use]
pub fn is_ip(socket: BorrowedFd<'_>) -> bool {
    getsockname::<SockaddrStorage>(socket.as_raw_fd()).is_ok_and(|address| address_of(&address).is_some())
}

/// Return True if `socket` is of IPv6.
#[must_use]
pub fn is_ipv6(socket: BorrowedFd<'_>) -> bool {
    getsockname::<SockaddrStorage>(socket.as_raw_fd()).is_ok_and(|address| address.as_sockaddr_in6().is_some())
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*address).into()));
    }
    address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()))
}
