//! The pump: moves what each of two ends has to the other, until a bell is readable.
//!
//! One buffer for each direction is all its memory: what the target has no room for waits there, and what comes
//! meanwhile waits where it comes from. A wake-up for a single packet costs four system calls: one that waits,
//! for sources and bells together, one that reads, one that finds nothing more to read, and one that writes.

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::sync::atomic::AtomicU64;
use std::thread;

use rustix::io::Errno;

use crate::intake::{Intake, MAX_BUNDLE, Sources, Stop};
use crate::outlet::{Options, Outlet};

/// Bytes of the buffer: 15 superpackets, or 256 packets of 1500 bytes, and room to spare.
const MEMORY: usize = 1 << 20;

/// One of the two ends: its non-blocking descriptors, and what it counts while others read that.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where its records are read.
    pub sources: &'a [BorrowedFd<'a>],
    /// Where the other's are written.
    pub target: BorrowedFd<'a>,
    /// Packets, bytes and bundles.
    pub received: &'a [AtomicU64; 3],
    /// Packets, bytes, bundles and dropped packets.
    pub sent: &'a [AtomicU64; 4],
    /// Whether it takes superpackets.
    pub coalescing: bool,
}

/// How a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The error of a descriptor, or none where it was a bell.
    pub error: Option<(Errno, Place)>,
    /// Whether the left end and the right one still take superpackets, where they were said to.
    pub coalescing: [bool; 2],
}

/// One of the two ends, by its place in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Place {
    Left,
    Right,
}

/// Move what each end has to the other until one of `bells` is readable; with a thread for each direction.
///
/// Records are packets or, if `headed`, have a virtio header. An end that is coalescing gets superpackets made
/// of bundles, of UDP only if `udp`, until it refuses one.
///
/// # Errors
///
/// Where the system has no thread, or no descriptors for the two to end each other by.
pub fn pump(
    left: &End<'_>,
    right: &End<'_>,
    bells: &[BorrowedFd<'_>],
    headed: bool,
    udp: bool,
) -> std::io::Result<Ended> {
    let (forth_heard, back_over) = pipe()?;
    let (back_heard, forth_over) = pipe()?;
    let run = |near: &End<'_>, far: &End<'_>, heard: PipeReader, mut over: PipeWriter| {
        let bells = [bells, &[heard.as_fd()]].concat();
        let result = move_all(near, far, &bells, Options { headed, coalescing: far.coalescing, udp });
        // It rings at the other direction, which may be over already. A panic rings too, for it hangs up.
        let _ = over.write_all(b"!");
        result
    };
    thread::scope(|scope| {
        let back = thread::Builder::new()
            .name("threepipe-pump".into())
            .spawn_scoped(scope, move || run(right, left, back_heard, back_over))?;
        let (forth, right_coalescing) = run(left, right, forth_heard, forth_over);
        let (back, left_coalescing) = back.join().unwrap_or_else(|panic| resume_unwind(panic));
        let error = match (forth, back) {
            (Stop::Source(error), _) | (_, Stop::Target(error)) => Some((error, Place::Left)),
            (Stop::Target(error), _) | (_, Stop::Source(error)) => Some((error, Place::Right)),
            _ => None,
        };
        Ok(Ended { error, coalescing: [left_coalescing, right_coalescing] })
    })
}

/// One direction: returns what ended it, and whether the far end still takes superpackets.
fn move_all(near: &End<'_>, far: &End<'_>, bells: &[BorrowedFd<'_>], options: Options) -> (Stop, bool) {
    let mut intake = Intake::new(options.headed, near.received, MEMORY);
    let mut outlet = Outlet::new(far, bells, options);
    let stop = Sources::new(near.sources, bells)
        .map_or_else(|stop| stop, |mut sources| run(&mut sources, &mut intake, &mut outlet));
    (stop, outlet.is_coalescing())
}

fn run(sources: &mut Sources<'_>, intake: &mut Intake<'_>, outlet: &mut Outlet<'_>) -> Stop {
    loop {
        let all = match sources.wait().and_then(|source| intake.receive(source, MAX_BUNDLE)) {
            Err(stop) => return stop,
            Ok(None) => continue,
            Ok(Some(all)) => all,
        };
        match outlet.send(&intake.memory, &intake.bundle, all) {
            // The link may come up again.
            Ok(()) | Err(Stop::Down) => {}
            Err(stop) => return stop,
        }
    }
}
