//! The pump: forwards both ways between two ends, until a bell is readable.
//!
//! `end` lists the kinds of ends. A direction is the intake of one end and the outlet of the other: it receives a bundle
//! and sends it, and one buffer is all its memory. Packets wait in it while the target has no room, and later packets
//! wait at their source. `pace` says how much a direction forwards at a time.
//!
//! There are two directions and two threads, the caller's and a second one, which forwards the second direction while
//! the `gate` is open. While the gate is shut, the first thread forwards both. The ends have their twins in
//! `threepipe.core.pump`; the loop's counterpart there is `forward`, between sessions.

mod direction;
mod end;
mod gate;
mod pace;

use std::io::pipe;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::io::Errno;

use crate::io::stop::Stop;
use crate::pump::direction::{Direction, Shared};
use crate::pump::pace::Pace;

pub use crate::io::counters::Counters;
pub use crate::io::stop::Raised;
#[cfg(target_os = "linux")]
pub use crate::pump::end::{DatagramsEnd, PeersEnd, RecordsEnd};
pub use crate::pump::end::{End, TunEnd};

/// The outcome of a pump.
#[derive(Debug)]
pub enum Ended {
    /// A bell is readable.
    Bell,
    /// An end failed.
    Failed(Errno, Side),
    /// A handler raised an exception.
    Raised(Raised),
}

/// One of the two ends, by its position in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The first end.
    Left,
    /// The second end.
    Right,
}

/// The reason why a pump did not start.
#[derive(Debug)]
pub enum Error {
    /// The two ends do not fit together.
    Mismatch,
    /// The system has no more threads or descriptors.
    System(std::io::Error),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

/// Forward both ways between two ends until one of `bells` is readable.
///
/// An adapter that accepts superpackets gets bundles coalesced. While the link of an adapter is down, packets to it are
/// dropped and counted. Of an adapter and another end, only the adapter is ever the one that failed. Packets for an
/// adapter that wait for room when it ends are kept in that end.
///
/// # Errors
///
/// If the ends do not fit together, or if the system lacks what the pump needs.
///
/// # Panics
///
/// If one of its threads does.
pub fn pump(left: &End<'_>, right: &End<'_>, bells: &[BorrowedFd<'_>]) -> Result<Ended, Error> {
    let pace = Pace::between(left, right).ok_or(Error::Mismatch)?;
    let route = Route::new(left, right);
    let (from, to) = (route.from, route.to);
    // A thread that ends, by a panic too, hangs up its pipe, which is a bell of the other thread.
    let (first_heard, second_over) = pipe()?;
    let (second_heard, first_over) = pipe()?;
    let (nudged, nudge) = pipe()?;
    let first_bells = [bells, &[first_heard.as_fd()]].concat();
    let second_bells = [bells, &[second_heard.as_fd()]].concat();
    let shared = Shared::new(Direction::new(to, from, &second_bells, pace), pace);
    let direction = Direction::new(from, to, &first_bells, pace);
    let shared = &shared;
    thread::scope(|scope| {
        let second = thread::Builder::new().name("threepipe-pump".into()).spawn_scoped(scope, move || {
            let _over = second_over;
            shared.run_second(to.sources(), &second_bells, nudge)
        })?;
        let first = shared.run_first(direction, [from.sources(), to.sources()], &first_bells, &nudged);
        drop(first_over);
        let second = second.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(route.ended(first, second))
    })
}

/// The first direction of a pump; the second one is its reverse.
struct Route<'e, 'a> {
    from: &'e End<'a>,
    to: &'e End<'a>,
    from_side: Side,
    to_side: Side,
}

impl<'e, 'a> Route<'e, 'a> {
    /// Choose the direction from the end that is not an adapter, else the one from the right.
    fn new(left: &'e End<'a>, right: &'e End<'a>) -> Self {
        if left.is_tun() {
            Self { from: right, to: left, from_side: Side::Right, to_side: Side::Left }
        } else {
            Self { from: left, to: right, from_side: Side::Left, to_side: Side::Right }
        }
    }

    /// Return the outcome, by the reasons why the two directions stopped. The left end's failure comes first.
    fn ended(&self, first: Stop, second: Stop) -> Ended {
        let mut failures = Vec::new();
        for (stop, source, target) in [(first, self.from_side, self.to_side), (second, self.to_side, self.from_side)] {
            match stop {
                Stop::Bell => {}
                Stop::Source(error) => failures.push((source, error)),
                Stop::Target(error) => failures.push((target, error)),
                #[cfg(target_os = "linux")]
                Stop::Raised(raised) => return Ended::Raised(raised),
            }
        }
        let failure = failures.into_iter().min_by_key(|(side, _)| *side);
        failure.map_or(Ended::Bell, |(side, error)| Ended::Failed(error, self.blamed(side)))
    }

    /// Return the side to blame for a failure on `side`. Waiting for another end can fail, but the end itself does not, so
    /// the blame is an adapter's, if there is one.
    fn blamed(&self, side: Side) -> Side {
        if side == self.from_side && !self.from.is_tun() && self.to.is_tun() { self.to_side } else { side }
    }
}
