//! Datagrams: UDP in runs, as Linux takes and gives them (`UDP_SEGMENT`, `UDP_GRO`), and the addresses at both ends.
//!
//! What options the sockets have is their owner's business.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, getsockname, recvmsg,
    sendmsg,
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

/// Room for what the kernel says of a run.
pub struct Ancillary(Vec<u8>);

impl Default for Ancillary {
    fn default() -> Self {
        Self(nix::cmsg_space!(i32, in_pktinfo, in6_pktinfo))
    }
}

/// Receive a run to the start of `memory`, which has room for the longest; None where nothing is ready.
pub fn receive(socket: BorrowedFd<'_>, memory: &mut [u8], ancillary: &mut Ancillary) -> Option<Arrival> {
    let mut slices = [IoSliceMut::new(memory)];
    // Whatever the error is, there is nothing; some tell what became of a datagram that was sent.
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut ancillary.0), MsgFlags::MSG_DONTWAIT)
            .ok()?;
    let source = address_of(received.address.as_ref()?)?;
    let mut arrival = Arrival { bytes: received.bytes, size: received.bytes, source, local: None };
    for message in received.cmsgs().into_iter().flatten() {
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

/// Send `run`, datagrams of `size` bytes each but the last, to `target`: all or, where it fails, none.
///
/// They are from the address `local`, or one that the system chooses.
///
/// # Errors
///
/// The system's.
pub fn send(
    socket: BorrowedFd<'_>,
    run: &[u8],
    size: usize,
    target: SocketAddr,
    local: Option<IpAddr>,
) -> Result<(), Errno> {
    let segment = size as u16;
    let (four, six);
    let mut messages = Vec::with_capacity(2);
    if size < run.len() {
        messages.push(ControlMessage::UdpGsoSegments(&segment));
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
    let (socket, slices) = (socket.as_raw_fd(), [IoSlice::new(run)]);
    let sent = match target {
        SocketAddr::V4(target) => {
            sendmsg(socket, &slices, &messages, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(target)))
        }
        SocketAddr::V6(target) => {
            sendmsg(socket, &slices, &messages, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn6::from(target)))
        }
    };
    sent.map(drop).map_err(|error| Errno::from_raw_os_error(error as i32))
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
