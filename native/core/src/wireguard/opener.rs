//! Opener: datagrams of peers become packets. Does no I/O.

use std::sync::Arc;

use crate::io::bundle::Piece;
use crate::io::datagrams::Arrival;
use crate::io::stop::Raised;
use crate::packet::ecn;
use crate::packet::record::Measure;
use crate::wireguard::handler::Handler;
use crate::wireguard::router::{Receiving, Rejected, Router};
use crate::wireguard::sealing::{OVERHEAD, Opened, TYPE};

/// Opens messages with the keypairs of a router, and gives other datagrams to the handler.
pub struct Opener<'a> {
    router: &'a Router,
    handler: &'a dyn Handler,
    packets: Vec<Piece>,
}

impl<'a> Opener<'a> {
    /// Make an opener for the peers of one device.
    #[must_use]
    pub fn new(router: &'a Router, handler: &'a dyn Handler) -> Self {
        Self { router, handler, packets: Vec::new() }
    }

    /// Return the packets of `arrivals`, in order. Each is a run and where in `memory` it begins.
    ///
    /// Packets that the handler returns are appended to `memory`.
    ///
    /// # Errors
    ///
    /// Those of the handler.
    ///
    /// # Panics
    ///
    /// If an arrival is not within the memory.
    pub fn open(&mut self, memory: &mut Vec<u8>, arrivals: &[(usize, Arrival)], now: f64) -> Result<&[Piece], Raised> {
        self.packets.clear();
        for (start, arrival) in arrivals {
            self.open_run(memory, *start, arrival, now)?;
        }
        Ok(&self.packets)
    }

    /// Open a run of datagrams. The rest of it goes to the handler from the first datagram on that has no known
    /// keypair, or comes from another address than its peer did before.
    fn open_run(&mut self, memory: &mut Vec<u8>, start: usize, arrival: &Arrival, now: f64) -> Result<(), Raised> {
        let (mut start, end) = (start, start + arrival.bytes);
        while start < end {
            let Some(receiving) = self.receiving(&memory[start..end], arrival, now) else {
                for packet in self.handler.receive(&memory[start..end], arrival)? {
                    let place = memory.len()..memory.len() + packet.len();
                    memory.extend_from_slice(&packet);
                    self.packets.push(Piece { measure: measure(packet.len()), place });
                }
                return Ok(());
            };
            let opened = receiving.keypair.transport.open(&mut memory[start..end], arrival.size);
            let forged = opened.used.div_ceil(arrival.size) - opened.authentic;
            self.router.reject(Rejected::Forged, forged as u64);
            if opened.authentic > 0 {
                let first = self.packets.len();
                self.accept(&receiving, &opened, start, arrival);
                if arrival.ecn > 0 {
                    self.combine_ecn(first, memory, arrival.ecn);
                }
                self.note(&receiving, &opened, now)?;
            }
            start += opened.used;
        }
        Ok(())
    }

    /// Return the keypair that opens the first of some datagrams.
    fn receiving(&self, datagrams: &[u8], arrival: &Arrival, now: f64) -> Option<Arc<Receiving>> {
        if datagrams.len().min(arrival.size) < OVERHEAD {
            return None;
        }
        let (kind, rest) = datagrams.split_first_chunk::<4>()?;
        let index = u32::from_le_bytes(*rest.first_chunk()?);
        let tables = self.router.tables();
        let receiving = tables.receiving(index).filter(|receiving| {
            *kind == TYPE && now < receiving.keypair.expires_at && receiving.peer.endpoint == Some(arrival.source)
        });
        receiving.cloned()
    }

    /// Keep the packets whose source is among the peer's allowed IPs. `start` is where the opened memory begins.
    fn accept(&mut self, receiving: &Receiving, opened: &Opened, start: usize, arrival: &Arrival) {
        let peer = &receiving.peer;
        if arrival.local.is_some() && arrival.local != peer.local() {
            peer.set_local(arrival.local);
        }
        let tables = self.router.tables();
        let mut packets = opened
            .packets
            .iter()
            .map(|(from, to)| Piece { place: start + from..start + to, measure: measure(to - from) });
        for (source, count) in &opened.sources {
            let group = packets.by_ref().take(*count);
            if tables.allows(*source, peer.number) {
                self.packets.extend(group);
            } else {
                self.router.reject(Rejected::Source, group.count() as u64);
            }
        }
    }

    /// Combine the ECN field of datagrams with those of their packets, from the one at `first` on. Drop those that must
    /// not go on.
    fn combine_ecn(&mut self, first: usize, memory: &mut [u8], outer: u8) {
        let to_drop = |piece: &mut Piece| !ecn::combine(&mut memory[piece.place.clone()], outer);
        let dropped = self.packets.extract_if(first.., to_drop).count();
        self.router.reject(Rejected::Congested, dropped as u64);
    }

    /// Note the peer's traffic, and call the handler if something may be due.
    fn note(&self, receiving: &Receiving, opened: &Opened, now: f64) -> Result<(), Raised> {
        let Receiving { keypair, peer } = receiving;
        let unscheduled = peer.traffic.received(now, !opened.packets.is_empty(), opened.bytes as u64);
        if unscheduled || now >= keypair.attend_at.get() {
            keypair.attend_at.set(self.handler.attend(peer.number, false)?);
        }
        Ok(())
    }
}

/// Return the measure of one well-formed packet.
fn measure(size: usize) -> Measure {
    Measure { packets: 1, size: size as u64, valid: true }
}
