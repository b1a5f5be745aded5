//! Opener: datagrams of peers become packets. The inside of the tunnel's loop towards the adapter; does no I/O.

use std::ops::Range;
use std::sync::Arc;

use crate::datagrams::Arrival;
use crate::router::{Keypair, Rejected, Router};
use crate::sealing::{OVERHEAD, Opened, TYPE};
use crate::tunnel::Above;

/// Opens by what a router knows, and hands up what it does not.
pub struct Opener<'a, A> {
    router: &'a Router,
    above: &'a A,
    /// Where in memory the packets are.
    packets: Vec<Range<usize>>,
    /// Packets that came from above, and before which of the others they belong.
    opened_above: Vec<(usize, Vec<u8>)>,
}

impl<'a, A: Above> Opener<'a, A> {
    /// For the peers of one device.
    #[must_use]
    pub fn new(router: &'a Router, above: &'a A) -> Self {
        Self { router, above, packets: Vec::new(), opened_above: Vec::new() }
    }

    /// The packets of what arrived, in order: `arrivals` says where in `memory` each begins.
    ///
    /// # Errors
    ///
    /// Those from above.
    ///
    /// # Panics
    ///
    /// Where an arrival is not within the memory.
    pub fn open<'b>(
        &'b mut self,
        memory: &'b mut [u8],
        arrivals: &[(usize, Arrival)],
        now: f64,
    ) -> Result<Vec<&'b [u8]>, A::Error> {
        self.packets.clear();
        self.opened_above.clear();
        for (start, arrival) in arrivals {
            self.open_run(memory, *start, arrival, now)?;
        }
        let mut packets: Vec<&[u8]> = Vec::with_capacity(self.packets.len() + self.opened_above.len());
        let mut above = self.opened_above.iter().peekable();
        for (index, place) in self.packets.iter().enumerate() {
            while let Some((_, packet)) = above.next_if(|(before, _)| *before <= index) {
                packets.push(packet);
            }
            packets.push(&memory[place.clone()]);
        }
        packets.extend(above.map(|(_, packet)| packet.as_slice()));
        Ok(packets)
    }

    /// Open a run of datagrams; what is not opened by a keypair that is known goes up, and so does what comes from
    /// where its peer was not before.
    fn open_run(&mut self, memory: &mut [u8], start: usize, arrival: &Arrival, now: f64) -> Result<(), A::Error> {
        let (mut start, end) = (start, start + arrival.bytes);
        while start < end {
            let Some(keypair) = self.keypair(&memory[start..end], arrival, now) else {
                let datagrams = &memory[start..end];
                let packets = self.above.receive(datagrams, arrival)?;
                self.opened_above.extend(packets.into_iter().map(|packet| (self.packets.len(), packet)));
                return Ok(());
            };
            let opened = keypair.transport.unseal(&mut memory[start..end], arrival.size);
            let forged = opened.used.div_ceil(arrival.size) - opened.authentic;
            self.router.reject(Rejected::Forged, forged as u64);
            if opened.authentic > 0 {
                self.take(&keypair, &opened, start, arrival, now)?;
            }
            start += opened.used;
        }
        Ok(())
    }

    /// By what the first of some datagrams is opened here.
    fn keypair(&self, datagrams: &[u8], arrival: &Arrival, now: f64) -> Option<Arc<Keypair>> {
        if datagrams.len().min(arrival.size) < OVERHEAD {
            return None;
        }
        let (kind, rest) = datagrams.split_first_chunk::<4>()?;
        let index = u32::from_le_bytes(*rest.first_chunk()?);
        let tables = self.router.tables();
        let keypair = tables
            .keypair(index)
            .filter(|keypair| *kind == TYPE && now < keypair.until && keypair.peer.endpoint == Some(arrival.source));
        keypair.cloned()
    }

    /// Keep the packets that are from where their peer may send from.
    fn take(
        &mut self,
        keypair: &Keypair,
        opened: &Opened,
        start: usize,
        arrival: &Arrival,
        now: f64,
    ) -> Result<(), A::Error> {
        let peer = &keypair.peer;
        if arrival.local.is_some() && arrival.local != peer.local() {
            peer.set_local(arrival.local);
        }
        let tables = self.router.tables();
        let mut packets = opened.packets.iter().map(|(from, to)| start + from..start + to);
        for (source, count) in &opened.sources {
            let group = packets.by_ref().take(*count);
            if tables.allows(*source, peer.number) {
                self.packets.extend(group);
            } else {
                self.router.reject(Rejected::Source, group.count() as u64);
            }
        }
        drop(tables);
        let nobody_looks = peer.traffic.received(now, !opened.packets.is_empty(), opened.bytes as u64);
        if nobody_looks || now >= keypair.attend_at.get() {
            keypair.attend_at.set(self.above.attend(peer.number, false)?);
        }
        Ok(())
    }
}
