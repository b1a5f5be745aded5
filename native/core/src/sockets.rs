//! Sockets: runs of messages sent to peers, by the socket of their family; what cannot be sent is counted.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::datagrams;
use crate::intake::{Stop, any, watched};
use crate::router::{Peer, Rejected, Router};

/// The sockets, by family, to send by; where there is no room it is waited for.
pub(crate) struct Sockets<'a> {
    sockets: [Option<Socket<'a>>; 2],
    /// The bells, and room for a socket.
    polled: Vec<PollFd<'a>>,
}

#[derive(Clone, Copy)]
struct Socket<'a> {
    socket: BorrowedFd<'a>,
    /// Bytes of a datagram in a run at most; longer ones go one by one.
    longest: usize,
}

impl<'a> Sockets<'a> {
    pub(crate) fn new(sockets: &[BorrowedFd<'a>], bells: &[BorrowedFd<'a>]) -> Self {
        let mut by_family = [None; 2];
        for socket in sockets {
            by_family[usize::from(datagrams::is_ipv6(*socket))] = Some(Socket { socket: *socket, longest: usize::MAX });
        }
        Self { sockets: by_family, polled: watched(bells) }
    }

    /// Send a run of messages of `size` bytes each but the last; what cannot be sent is counted.
    pub(crate) fn send(
        &mut self,
        run: &[u8],
        size: usize,
        endpoint: SocketAddr,
        peer: &Peer,
        router: &Router,
    ) -> Result<(), Stop> {
        let family = usize::from(endpoint.is_ipv6());
        let Some(Socket { socket, longest }) = self.sockets[family] else {
            return Ok(()); // As the system has none of this family, nothing came from there.
        };
        if size < run.len() && size <= longest {
            match self.send_one(socket, run, size, endpoint, peer)? {
                Ok(()) => return Ok(()),
                // Longer than its path takes; fragments go one by one.
                Err(Errno::MSGSIZE | Errno::INVAL) => self.refused(family, size - 1),
                // A device that computes no checksums, or a system that is too old.
                Err(Errno::IO | Errno::OPNOTSUPP | Errno::NOPROTOOPT) => self.refused(family, 0),
                Err(error) => {
                    router.reject(Rejected::NotSent(error.raw_os_error()), run.len().div_ceil(size) as u64);
                    return Ok(());
                }
            }
        }
        for message in run.chunks(size) {
            if let Err(error) = self.send_one(socket, message, size, endpoint, peer)? {
                router.reject(Rejected::NotSent(error.raw_os_error()), 1);
            }
        }
        Ok(())
    }

    fn refused(&mut self, family: usize, longest: usize) {
        if let Some(socket) = &mut self.sockets[family] {
            socket.longest = longest;
        }
    }

    /// One system call, again where there is room at last.
    fn send_one(
        &mut self,
        socket: BorrowedFd<'a>,
        run: &[u8],
        size: usize,
        endpoint: SocketAddr,
        peer: &Peer,
    ) -> Result<Result<(), Errno>, Stop> {
        let known = peer.local();
        let mut local = known;
        loop {
            match datagrams::send(socket, run, size, endpoint, local) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room(socket)?,
                // It may be for the address, which this machine perhaps has no more.
                Err(error) if local.take().is_none() => return Ok(Err(error)),
                Err(_) => {}
                Ok(()) => {
                    if local != known {
                        peer.set_local(None);
                    }
                    return Ok(Ok(()));
                }
            }
        }
    }

    fn wait_for_room(&mut self, socket: BorrowedFd<'a>) -> Result<(), Stop> {
        self.polled.push(PollFd::from_borrowed_fd(socket, PollFlags::OUT));
        let polled = poll(&mut self.polled, None);
        self.polled.pop();
        match polled {
            Ok(_) if any(&self.polled) => Err(Stop::Bell),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Stop::Source(error)),
        }
    }
}
