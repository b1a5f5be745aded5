//! Datagrams: UDP in runs, as Linux takes and gives them (`UDP_SEGMENT`, `UDP_GRO`), and the addresses at both ends.
//!
//! What options the sockets have is their owner's business.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, getsockname, recvmmsg,
    sendmmsg,
};
use rustix::io::Errno;

/// Bytes of a run at most, as `UDP_GRO` hands it over.
pub const LONGEST_RUN: usize = 0xFFFF;

/// A run of datagrams of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of all.
    pub bytes: usize,
    /// Bytes of each but the last, which may be shorter.
    pub size: usize,
    /// Where they are from.
    pub source: SocketAddr,
    /// The address they were sent to, where the socket tells (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
    pub local: Option<IpAddr>,
}

/// Receive runs that are ready, one to the start of each of `places`, which have [`LONGEST_RUN`] bytes or more: as many
/// as come, and none where nothing is ready. One system call.
#[must_use]
pub fn receive(socket: BorrowedFd<'_>, places: Vec<&mut [u8]>) -> Vec<Arrival> {
    let room = cmsg_space!(i32, in_pktinfo, in6_pktinfo);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(places.len(), Some(room));
    let mut slices: Vec<_> = places.into_iter().map(|place| [IoSliceMut::new(place)]).collect();
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None);
    // Whatever the error is, there is nothing; some tell what became of a datagram that was sent.
    received.map(|received| received.map_while(|run| arrival(&run)).collect()).unwrap_or_default()
}

fn arrival(run: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Arrival> {
    let source = address_of(run.address.as_ref()?)?;
    let mut arrival = Arrival { bytes: run.bytes, size: run.bytes, source, local: None };
    for message in run.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::UdpGroSegments(size) => {
                arrival.size = usize::try_from(size).unwrap_or(arrival.bytes).max(1);
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                arrival.local = Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => arrival.local = Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => {}
        }
    }
    Some(arrival)
}

/// Send runs of datagrams to where each goes, and return how many were sent, which may be fewer. One system call.
///
/// A run goes all or not at all: datagrams of `size` bytes each but the last, or one where that is none. All are from
/// the address `local`, or one that the system chooses.
///
/// # Errors
///
/// The system's, where the first could not be sent.
pub fn send(
    socket: BorrowedFd<'_>,
    runs: &[(&[u8], SocketAddr)],
    size: Option<u16>,
    local: Option<IpAddr>,
) -> Result<usize, Errno> {
    let (four, six);
    let mut messages = Vec::with_capacity(2);
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
    // As much as they take: where they end before it does, the system finds an error.
    let room = match (size, local) {
        (None, None) => None,
        (None, Some(IpAddr::V4(_))) => Some(cmsg_space!(in_pktinfo)),
        (None, Some(IpAddr::V6(_))) => Some(cmsg_space!(in6_pktinfo)),
        (Some(_), None) => Some(cmsg_space!(u16)),
        (Some(_), Some(IpAddr::V4(_))) => Some(cmsg_space!(u16, in_pktinfo)),
        (Some(_), Some(IpAddr::V6(_))) => Some(cmsg_space!(u16, in6_pktinfo)),
    };
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(runs.len(), room);
    let slices: Vec<_> = runs.iter().map(|(run, _)| [IoSlice::new(run)]).collect();
    let targets: Vec<_> = runs.iter().map(|(_, target)| Some(SockaddrStorage::from(*target))).collect();
    sendmmsg(socket.as_raw_fd(), &mut headers, &slices, targets, messages, MsgFlags::MSG_DONTWAIT)
        .map(Iterator::count)
        .map_err(|error| Errno::from_raw_os_error(error as i32))
}

/// Whether it is a socket of IPv6.
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
