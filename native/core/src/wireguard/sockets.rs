//! Sockets: runs of messages sent to peers, each by the socket of its family. Messages that cannot be sent are counted.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::io::datagrams;
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::RoomWait;
use crate::wireguard::router::{Peer, Rejected, Router};

/// The most messages sent by one system call.
const MESSAGES_PER_CALL: usize = 64;

/// The reason to stop, and the runs that were not sent.
type Unsent = (Stop, Vec<Outgoing>);

/// A run of messages to one peer, of `size` bytes each but the last, which may be shorter.
#[derive(Clone)]
pub(crate) struct Outgoing {
    /// Its position in memory.
    pub(crate) place: Range<usize>,
    pub(crate) size: usize,
    /// The ECN field of their IP headers.
    pub(crate) ecn: u8,
    pub(crate) endpoint: SocketAddr,
    pub(crate) peer: Arc<Peer>,
}

/// The sockets to send by. While one has no room, sending waits for it.
pub(crate) struct Sockets<'a> {
    /// The socket of IPv4 and that of IPv6.
    sockets: [Option<Socket<'a>>; 2],
    room: RoomWait<'a>,
}

#[derive(Clone, Copy)]
struct Socket<'a> {
    socket: BorrowedFd<'a>,
    /// Messages of at most so many bytes are sent in runs, longer ones one by one.
    max_in_run: usize,
}

/// The outcome of sending a run or a message.
enum Sent {
    Done,
    Failed(Errno),
}

impl<'a> Sockets<'a> {
    /// Take at most one socket of each family.
    pub(crate) fn new(sockets: &[BorrowedFd<'a>], room: RoomWait<'a>) -> Self {
        let mut by_family = [None; 2];
        for socket in sockets {
            by_family[usize::from(datagrams::is_ipv6(*socket))] =
                Some(Socket { socket: *socket, max_in_run: usize::MAX });
        }
        Self { sockets: by_family, room }
    }

    /// Send the `runs` in `memory`, in order. Count messages that cannot be sent. If sending has to stop, return the rest.
    pub(crate) fn send(&mut self, memory: &[u8], runs: &[Outgoing], router: &Router) -> Result<(), Unsent> {
        let mut rest = runs;
        while let Some(first) = rest.first() {
            let mut sent = 0;
            let together = sendable_together(&rest[..rest.len().min(MESSAGES_PER_CALL)]);
            if together > 1
                && let Some(Socket { socket, .. }) = self.sockets[family(first)]
            {
                let messages: Vec<_> =
                    rest[..together].iter().map(|run| (&memory[run.place.clone()], Some(run.endpoint))).collect();
                sent = datagrams::send(socket, &messages, None, first.peer.local(), first.ecn).unwrap_or(0);
            }
            if sent < together {
                if let Err((stop, bytes)) = self.send_run(&memory[rest[sent].place.clone()], &rest[sent], router) {
                    let mut unsent = rest[sent..].to_vec();
                    unsent[0].place.start += bytes;
                    return Err((stop, unsent));
                }
                sent += 1;
            }
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Send one run of messages by itself, or its messages one by one if it is refused as a whole. If sending has to stop,
    /// return the bytes that were sent.
    fn send_run(&mut self, messages: &[u8], run: &Outgoing, router: &Router) -> Result<(), (Stop, usize)> {
        let Some(Socket { socket, max_in_run }) = self.sockets[family(run)] else {
            return Ok(()); // Without a socket of this family no message came from there.
        };
        if run.size < messages.len() && run.size <= max_in_run {
            match self.try_send(socket, messages, Some(run.size as u16), run).map_err(|stop| (stop, 0))? {
                Sent::Done => return Ok(()),
                // The messages are longer than the path's MTU; fragments have to go one by one.
                Sent::Failed(Errno::MSGSIZE | Errno::INVAL) => self.limit_runs(run, run.size - 1),
                // The device computes no checksums, or the system is too old.
                Sent::Failed(Errno::IO | Errno::OPNOTSUPP | Errno::NOPROTOOPT) => self.limit_runs(run, 0),
                Sent::Failed(error) => {
                    router.reject(Rejected::NotSent(error.raw_os_error()), messages.len().div_ceil(run.size) as u64);
                    return Ok(());
                }
            }
        }
        for (number, message) in messages.chunks(run.size).enumerate() {
            let sent = self.try_send(socket, message, None, run).map_err(|stop| (stop, number * run.size))?;
            if let Sent::Failed(error) = sent {
                router.reject(Rejected::NotSent(error.raw_os_error()), 1);
            }
        }
        Ok(())
    }

    fn limit_runs(&mut self, run: &Outgoing, max_in_run: usize) {
        if let Some(socket) = &mut self.sockets[family(run)] {
            socket.max_in_run = max_in_run;
        }
    }

    /// Send by one system call, repeated once there is room.
    fn try_send(
        &mut self,
        socket: BorrowedFd<'a>,
        messages: &[u8],
        size: Option<u16>,
        run: &Outgoing,
    ) -> Result<Sent, Stop> {
        let known = run.peer.local();
        let mut local = known;
        loop {
            match datagrams::send(socket, &[(messages, Some(run.endpoint))], size, local, run.ecn) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if let Flow::Break(stop) = self.room.wait(socket) {
                        return Err(stop);
                    }
                }
                // The cause may be the local address, if this machine no longer has it: try without.
                Err(error) if local.take().is_none() => return Ok(Sent::Failed(error)),
                Err(_) => {}
                Ok(_) => {
                    if local != known {
                        run.peer.set_local(None);
                    }
                    return Ok(Sent::Done);
                }
            }
        }
    }
}

/// Return the index of the socket for `run`.
fn family(run: &Outgoing) -> usize {
    usize::from(run.endpoint.is_ipv6())
}

/// Return how many of `runs`, from the first, can go by one system call: single messages of the same ECN field, from the
/// same local address.
fn sendable_together(runs: &[Outgoing]) -> usize {
    let Some(first) = runs.first() else {
        return 0;
    };
    let local = first.peer.local();
    let fits = |run: &&Outgoing| {
        run.place.len() <= run.size && family(run) == family(first) && run.ecn == first.ecn && run.peer.local() == local
    };
    runs.iter().take_while(fits).count().max(1)
}
