//! A bundle on its way from an intake to an outlet.

use std::ops::Range;

use crate::io::stop::Flow;
use crate::io::waiting::Ready;
use crate::packet::record::Measure;

/// The most records in a bundle. The twin of `MAX_BUNDLE` in `threepipe.core.descriptor`.
pub const MAX_BUNDLE: usize = 256;

/// A record or packet in a bundle's memory.
pub struct Piece {
    /// Its position in the memory.
    pub place: Range<usize>,
    /// Its measure.
    pub measure: Measure,
}

/// Received packets, in memory of the intake.
pub(crate) struct Bundle<'a> {
    pub(crate) memory: &'a [u8],
    pub(crate) pieces: &'a [Piece],
    /// The measure of all pieces.
    pub(crate) total: Measure,
    /// True if the pieces are records with a virtio header, false if they are packets.
    pub(crate) vnet_header: bool,
    /// Bytes that were received. They may hold more than the packets.
    pub(crate) received: u64,
    /// True if forwarding stops after it.
    pub(crate) last: bool,
}

impl<'a> Bundle<'a> {
    /// Return each piece with its measure.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&'a [u8], Measure)> + use<'a> {
        let memory = self.memory;
        self.pieces.iter().map(move |piece| (&memory[piece.place.clone()], piece.measure))
    }
}

/// The receiving side of an end.
pub(crate) trait Intake: Send {
    /// Receive and count a bundle of up to `limit` reads from a source that is ready. Return None if nothing came.
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>>;
}

/// The sending side of an end.
pub(crate) trait Outlet: Send {
    /// Send and count a bundle. Wait while there is no room; count packets that cannot be sent as dropped.
    fn send(&mut self, bundle: &Bundle<'_>) -> Flow;
}
