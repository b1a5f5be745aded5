//! The pump: forwards both ways between two ends, until a bell is readable.
//!
//! `end` lists the kinds of ends. A direction is the intake of one end and the outlet of the other: it receives a bundle
//! and sends it, and one buffer is all its memory. Packets wait in it while the target has no room, and later packets
//! wait at their source. `pace` says how much a direction forwards at a time.
//!
//! There are two directions and two `threads`, the caller's and a second one. While the `gate` is open each forwards one
//! direction; while it is shut, the first thread forwards both. The gate opens when there is much traffic, and when the
//! first thread has to wait for room. The ends have their twins in `threepipe.core.ends`; the loop's counterpart is
//! `threepipe.core.pump.forward`, between sessions.

mod direction;
mod end;
mod gate;
mod pace;
mod threads;

use std::io::pipe;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::io::{Errno, ioctl_fionbio};

use crate::io::stop::Stop;
use crate::io::waiting::{RoomWait, Sources};
use crate::pump::direction::Direction;
use crate::pump::gate::Gate;
use crate::pump::pace::Pace;
use crate::pump::threads::{Shared, Stopped, Together};

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

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// The program that the pump is part of.
pub trait Host: Sync {
    /// Do all the work of the second thread: the handlers' calls are cheaper in a thread that the host knows.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T;
}

impl Host for () {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        work()
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
pub fn pump(left: &End<'_>, right: &End<'_>, bells: &[BorrowedFd<'_>], host: &impl Host) -> Result<Ended, Error> {
    let pace = Pace::between(left, right).ok_or(Error::Mismatch)?;
    let route = Route::new(left, right);
    let [from, to] = route.ends;
    // A thread that ends, by a panic too, hangs up its pipe, which is a bell of the other thread.
    let (first_heard, second_over) = pipe()?;
    let (second_heard, first_over) = pipe()?;
    let bells = &[bells, &[first_heard.as_fd(), second_heard.as_fd()]].concat();
    let (nudged, nudge) = pipe()?;
    ioctl_fionbio(&nudged, true)?;
    let gate = &Gate::default();
    let direction = |index: usize| {
        let room = RoomWait::new(bells, move |waiting| gate.set_waiting(index, waiting));
        Direction::new(route.ends[index], route.ends[1 - index], nudged.as_fd(), bells, room, pace)
    };
    let directions = match (direction(0), direction(1)) {
        (Ok(first), Ok(second)) => [first, second],
        (Err(error), _) => return Ok(Ended::Failed(error, route.blamed(0))),
        (_, Err(error)) => return Ok(Ended::Failed(error, route.blamed(1))),
    };
    let shared = &Shared::new(directions, gate);
    let (together, nudge) = if pace.one_thread_if_calm {
        let sources = Sources::new(&[from.sources(), to.sources()].concat(), bells)?;
        (Some(Together { sources, of_first: from.sources().len() }), Some(nudge))
    } else {
        gate.open(1);
        (None, None)
    };
    thread::scope(|scope| {
        let second = thread::Builder::new().name("threepipe-pump".into()).spawn_scoped(scope, move || {
            let _over = second_over;
            host.run(|| shared.run_second(nudge))
        })?;
        let first = shared.run_first(together);
        drop(first_over);
        let second = second.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(route.ended(first, second))
    })
}

/// The first direction of a pump; the second one is its reverse.
struct Route<'e, 'a> {
    ends: [&'e End<'a>; 2],
    sides: [Side; 2],
}

impl<'e, 'a> Route<'e, 'a> {
    /// Choose the direction from the end that is not an adapter, else the one from the right.
    fn new(left: &'e End<'a>, right: &'e End<'a>) -> Self {
        if left.is_tun() {
            Self { ends: [right, left], sides: [Side::Right, Side::Left] }
        } else {
            Self { ends: [left, right], sides: [Side::Left, Side::Right] }
        }
    }

    /// Return the outcome, by the reasons why the two threads stopped. The left end's failure comes first.
    fn ended(&self, first: Stopped, second: Stopped) -> Ended {
        let mut failures = Vec::new();
        for Stopped { direction, stop } in [first, second] {
            match stop {
                Stop::Bell => {}
                Stop::Source(error) => failures.push((self.blamed(direction), error)),
                Stop::Target(error) => failures.push((self.blamed(1 - direction), error)),
                #[cfg(target_os = "linux")]
                Stop::Raised(raised) => return Ended::Raised(raised),
            }
        }
        let failure = failures.into_iter().min_by_key(|(side, _)| *side);
        failure.map_or(Ended::Bell, |(side, error)| Ended::Failed(error, side))
    }

    /// Return the side to blame for a failure at an end. Waiting for another end can fail, but the end itself does not, so
    /// the blame is an adapter's, if there is one.
    fn blamed(&self, end: usize) -> Side {
        let end = if self.ends[1].is_tun() && !self.ends[0].is_tun() { 1 } else { end };
        self.sides[end]
    }
}
