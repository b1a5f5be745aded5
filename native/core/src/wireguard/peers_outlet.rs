//! Packets sent to peers: sealed, and sent as datagrams by UDP sockets.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::io::bundle::{Bundle, Outlet};
use crate::io::counters::Counters;
use crate::io::stop::{Flow, Raised, Stop};
use crate::io::waiting::RoomWait;
use crate::packet::record::{HEADER_SIZE, Measure};
use crate::wireguard::clock::now;
use crate::wireguard::handler::{Handler, Target};
use crate::wireguard::router::{Keypair, Peer, Router};
use crate::wireguard::sealing::Messages;
use crate::wireguard::sockets::{Outgoing, Sockets};

/// Send the messages sealed so far before their bytes exceed this, so that they stay in the processor's cache.
const SEALED_SIZE: usize = 1 << 16;
/// The counter from which on a keypair has to be renewed (REKEY-AFTER-MESSAGES, section 6.1 of the paper).
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// The outlet of a device's peers.
pub(crate) struct PeersOutlet<'a> {
    router: &'a Router,
    handler: &'a dyn Handler,
    counters: Counters<'a>,
    sockets: Sockets<'a>,
    /// Memory for sealed messages.
    sealed: Vec<u8>,
    /// The runs in it to send.
    runs: Vec<Outgoing>,
}

impl<'a> PeersOutlet<'a> {
    pub(crate) fn new(
        router: &'a Router,
        handler: &'a dyn Handler,
        counters: Counters<'a>,
        sockets: &[BorrowedFd<'a>],
        room: RoomWait<'a>,
    ) -> Self {
        Self { router, handler, counters, sockets: Sockets::new(sockets, room), sealed: Vec::new(), runs: Vec::new() }
    }

    /// Send the messages sealed so far. The handler keeps those that wait for room when a bell rings.
    fn flush(&mut self) -> Flow {
        let sent = self.sockets.send(&self.sealed, &self.runs, self.router);
        self.runs.clear();
        let Err((stop, unsent)) = sent else {
            return Flow::Continue(());
        };
        if matches!(stop, Stop::Bell) {
            for Outgoing { place, size, ecn, endpoint, peer } in unsent {
                let target = Target { endpoint, local: peer.local(), ecn };
                if let Err(raised) = self.handler.keep(&self.sealed[place], size, target) {
                    return Flow::Break(Stop::Raised(raised));
                }
            }
        }
        Flow::Break(stop)
    }

    /// Stop before `records` were sealed. The handler gets them if a bell has rung.
    fn stop(&self, stop: Stop, records: &[&[u8]], vnet_header: bool) -> Flow {
        let raised = match stop {
            Stop::Bell => self.handler.send(records, vnet_header),
            _ => Ok(()),
        };
        Flow::Break(raised.map_or_else(Stop::Raised, |()| stop))
    }

    /// Group consecutive records by their peer, and return each peer with the number of its records.
    fn by_peer(&self, records: &[&[u8]], vnet_header: bool) -> Vec<(Option<Arc<Peer>>, usize)> {
        let offset = if vnet_header { HEADER_SIZE } else { 0 };
        let tables = self.router.tables();
        let mut groups: Vec<(Option<Arc<Peer>>, usize)> = Vec::new();
        for record in records {
            let peer = tables.destination(&record[offset..]);
            match groups.last_mut() {
                Some((last, length)) if last.as_ref().map(Arc::as_ptr) == peer.map(Arc::as_ptr) => *length += 1,
                _ => groups.push((peer.cloned(), 1)),
            }
        }
        groups
    }

    /// Seal the records of one peer, to be sent by `flush`. Return False if the handler has to send them.
    fn seal(&mut self, peer: &Arc<Peer>, records: &[&[u8]], vnet_header: bool, now: f64) -> Flow<bool> {
        let (Some(keypair), Some(endpoint)) = (&peer.sending, peer.endpoint) else {
            return Flow::Continue(false);
        };
        let Some(messages) = Messages::new(records.to_vec(), vnet_header, self.router.mtu()) else {
            return Flow::Continue(true); // Each record has a header, as each was measured.
        };
        if now >= keypair.expires_at {
            return Flow::Continue(false);
        }
        let Some(counter) = keypair.transport.reserve(messages.count()) else {
            return Flow::Continue(false);
        };
        let size = messages.size();
        let mut start = self.runs.last().map_or(0, |run| run.place.end);
        if start > 0 && start + size > SEALED_SIZE {
            self.flush()?;
            start = 0;
        }
        if self.sealed.len() < start + size {
            self.sealed.resize(start + size, 0);
        }
        let counters = counter..counter + messages.count();
        if keypair.transport.seal(&messages, counters, &mut self.sealed[start..start + size]).is_err() {
            return Flow::Continue(true); // Wiped just now: the peer or the device is gone.
        }
        for run in messages.runs() {
            let place = start..start + run.bytes;
            start = place.end;
            self.runs.push(Outgoing { place, size: run.size, ecn: run.ecn, endpoint, peer: Arc::clone(peer) });
        }
        match self.note(peer, keypair, size as u64, counter, now) {
            Ok(()) => Flow::Continue(true),
            Err(raised) => Flow::Break(Stop::Raised(raised)),
        }
    }

    /// Note the peer's traffic, and call the handler if something may be due.
    fn note(&self, peer: &Peer, keypair: &Keypair, size: u64, counter: u64, now: f64) -> Result<(), Raised> {
        let unscheduled = peer.traffic.sent(now, true, size);
        if unscheduled || now >= keypair.attend_at.get() || counter > REKEY_AFTER_MESSAGES {
            keypair.attend_at.set(self.handler.attend(peer.number, true)?);
        }
        Ok(())
    }
}

impl Outlet for PeersOutlet<'_> {
    /// Packets that are not well-formed are dropped.
    fn send(&mut self, bundle: &Bundle<'_>) -> Flow {
        let mut good = Measure::NOTHING;
        let mut records = Vec::new();
        for (record, measure) in bundle.records() {
            if measure.valid {
                good = good.and(measure);
                records.push(record);
            }
        }
        self.counters.add_bundle(good);
        self.counters.add_dropped(bundle.total.packets - good.packets);
        let now = now();
        let mut rest = &records[..];
        for (peer, length) in self.by_peer(&records, bundle.vnet_header) {
            let (group, others) = rest.split_at(length);
            let sealed = match peer {
                Some(peer) => match self.seal(&peer, group, bundle.vnet_header, now) {
                    Flow::Continue(sealed) => sealed,
                    Flow::Break(stop) => return self.stop(stop, rest, bundle.vnet_header),
                },
                None => false,
            };
            if !sealed {
                // The handler may take its time.
                if let Flow::Break(stop) = self.flush() {
                    return self.stop(stop, rest, bundle.vnet_header);
                }
                if let Err(raised) = self.handler.send(group, bundle.vnet_header) {
                    return Flow::Break(Stop::Raised(raised));
                }
            }
            rest = others;
        }
        self.flush()
    }
}
