//! Sockets: runs of messages sent to peers, by the socket of their family; what cannot be sent is counted.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::datagrams;
use crate::intake::{Stop, any, watched};
use crate::router::{Peer, Rejected, Router};

/// Messages sent by one system call at most.
const AT_ONCE: usize = 64;

/// Messages for one peer, of `size` bytes each but the last.
pub(crate) struct Outgoing {
    /// Where they are in memory.
    pub(crate) place: Range<usize>,
    pub(crate) size: usize,
    pub(crate) endpoint: SocketAddr,
    pub(crate) peer: Arc<Peer>,
}

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

    /// Send runs of messages that are in `memory`, in order; what cannot be sent is counted.
    pub(crate) fn send(&mut self, memory: &[u8], runs: &[Outgoing], router: &Router) -> Result<(), Stop> {
        let mut rest = runs;
        while let Some(first) = rest.first() {
            let mut sent = 0;
            let together = alike(&rest[..rest.len().min(AT_ONCE)]);
            if together > 1
                && let Some(Socket { socket, .. }) = self.sockets[usize::from(first.endpoint.is_ipv6())]
            {
                let messages: Vec<_> =
                    rest[..together].iter().map(|run| (&memory[run.place.clone()], run.endpoint)).collect();
                sent = datagrams::send(socket, &messages, None, first.peer.local()).unwrap_or(0);
            }
            if sent < together {
                self.send_run(&memory[rest[sent].place.clone()], &rest[sent], router)?;
                sent += 1;
            }
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Send one run of messages by itself, in pieces where it is refused as a whole.
    fn send_run(&mut self, messages: &[u8], run: &Outgoing, router: &Router) -> Result<(), Stop> {
        let family = usize::from(run.endpoint.is_ipv6());
        let Some(Socket { socket, longest }) = self.sockets[family] else {
            return Ok(()); // As the system has none of this family, nothing came from there.
        };
        if run.size < messages.len() && run.size <= longest {
            match self.send_one(socket, messages, Some(run.size as u16), run)? {
                Ok(()) => return Ok(()),
                // Longer than its path takes; fragments go one by one.
                Err(Errno::MSGSIZE | Errno::INVAL) => self.refused(family, run.size - 1),
                // A device that computes no checksums, or a system that is too old.
                Err(Errno::IO | Errno::OPNOTSUPP | Errno::NOPROTOOPT) => self.refused(family, 0),
                Err(error) => {
                    router.reject(Rejected::NotSent(error.raw_os_error()), messages.len().div_ceil(run.size) as u64);
                    return Ok(());
                }
            }
        }
        for message in messages.chunks(run.size) {
            if let Err(error) = self.send_one(socket, message, None, run)? {
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
        messages: &[u8],
        size: Option<u16>,
        run: &Outgoing,
    ) -> Result<Result<(), Errno>, Stop> {
        let known = run.peer.local();
        let mut local = known;
        loop {
            match datagrams::send(socket, &[(messages, run.endpoint)], size, local) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room(socket)?,
                // It may be for the address, which this machine perhaps has no more.
                Err(error) if local.take().is_none() => return Ok(Err(error)),
                Err(_) => {}
                Ok(_) => {
                    if local != known {
                        run.peer.set_local(None);
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

/// How many of `runs`, from the first, may go by one system call: messages of their own, from one address.
fn alike(runs: &[Outgoing]) -> usize {
    let Some(first) = runs.first() else {
        return 0;
    };
    let (local, is_ipv6) = (first.peer.local(), first.endpoint.is_ipv6());
    let fits =
        |run: &&Outgoing| run.place.len() <= run.size && run.endpoint.is_ipv6() == is_ipv6 && run.peer.local() == local;
    runs.iter().take_while(fits).count().max(1)
}
