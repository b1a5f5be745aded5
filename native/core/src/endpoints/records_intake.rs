//! Packets received as records of a stream.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read};

use crate::endpoints::records::{Handler, LENGTH, Stream, Turn};
use crate::io::bundle::{Bundle, Intake, Piece};
use crate::io::counters::Counters;
use crate::io::stop::{Flow, Stop, raised};
use crate::io::waiting::Ready;
use crate::packet::record::{IPV4_HEADER, MAX_PACKET, Measure, is_packet};

/// Bytes read at once: 170 packets of 1500 bytes.
const READ: usize = 1 << 18;

/// The intake of a stream.
pub(crate) struct RecordsIntake<'a> {
    stream: &'a Stream,
    handler: Option<&'a dyn Handler>,
    counters: Counters<'a>,
    memory: Vec<u8>,
    /// The bytes in memory that are not part of a packet received before.
    unread: Range<usize>,
    /// True if the last read returned all that was ready, and packets.
    is_empty: bool,
    pieces: Vec<Piece>,
}

/// The records at the beginning of some bytes.
struct Parsed {
    /// Bytes of whole records.
    used: usize,
    /// The measure of their packets.
    total: Measure,
    /// True if the record after them is not a packet.
    fault: bool,
}

impl<'a> RecordsIntake<'a> {
    pub(crate) fn new(stream: &'a Stream, handler: Option<&'a dyn Handler>, counters: Counters<'a>) -> Self {
        let mut memory = stream.with(|state| std::mem::take(&mut state.unread));
        let unread = 0..memory.len();
        memory.resize(LENGTH + MAX_PACKET + READ, 0);
        Self { stream, handler, counters, memory, unread, is_empty: false, pieces: Vec::new() }
    }

    /// Have the owner go on with the stream.
    fn give_back<T>(&self, turn: Turn) -> Flow<T> {
        self.stream.with(|state| state.turn = Some(turn));
        Flow::Break(Stop::Bell)
    }

    /// Read after the unread bytes. Return the number of bytes, None if none are ready.
    fn read(&mut self, source: BorrowedFd<'_>) -> Flow<Option<usize>> {
        self.memory.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let room = &mut self.memory[self.unread.end..][..READ];
        let size = match self.handler {
            Some(handler) => handler.receive(room).map_or_else(raised, Flow::Continue)?,
            None => match read(source, room) {
                Ok(size) => Some(size),
                Err(Errno::AGAIN | Errno::INTR) => None,
                Err(error) => return self.give_back(Turn::Failed(error)),
            },
        };
        if size == Some(0) { self.give_back(Turn::Look) } else { Flow::Continue(size) }
    }

    /// Find the packets in the unread bytes.
    fn parse(&mut self) -> Parsed {
        self.pieces.clear();
        let mut parsed = Parsed { used: 0, total: Measure::NOTHING, fault: false };
        let bytes = &self.memory[self.unread.clone()];
        while let Some((length, rest)) = bytes[parsed.used..].split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(packet) = rest.get(..length) else {
                // Judged before the rest arrives: text, read as a length, would begin a record that never comes.
                parsed.fault = match rest.first() {
                    Some(first) => !is_packet(*first, length),
                    None => length < IPV4_HEADER,
                };
                break;
            };
            if length > 0 {
                let measure = Measure::of_packet(packet);
                if !measure.valid {
                    parsed.fault = true;
                    break;
                }
                let start = self.unread.start + parsed.used + LENGTH;
                self.pieces.push(Piece { place: start..start + length, measure });
                parsed.total = parsed.total.and(measure);
            }
            parsed.used += LENGTH + length;
        }
        parsed
    }
}

impl Intake for RecordsIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, _: usize) -> Flow<Option<Bundle<'_>>> {
        if std::mem::take(&mut self.is_empty) {
            return Flow::Continue(None);
        }
        let Some(size) = self.read(ready.source)? else { return Flow::Continue(None) };
        self.unread.end += size;
        let Parsed { used, total, fault } = self.parse();
        self.unread.start = used;
        if self.pieces.is_empty() {
            return if fault { self.give_back(Turn::Look) } else { Flow::Continue(None) };
        }
        if fault {
            self.stream.with(|state| state.turn = Some(Turn::Look));
        }
        self.is_empty = size < READ;
        self.counters.add_bundle(total);
        let Self { memory, pieces, .. } = self;
        Flow::Continue(Some(Bundle { memory, pieces, total, vnet_header: false, received: size as u64, last: fault }))
    }
}

impl Drop for RecordsIntake<'_> {
    fn drop(&mut self) {
        let unread = self.memory[self.unread.clone()].to_vec();
        self.stream.with(|state| state.unread = unread);
    }
}
