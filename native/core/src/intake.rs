//! Where records come in: descriptors that are waited for, and bundles read from them.

#[cfg(target_os = "linux")]
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::BorrowedFd;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_os = "linux")]
use rustix::buffer::spare_capacity;
#[cfg(target_os = "linux")]
use rustix::event::epoll;
#[cfg(not(target_os = "linux"))]
use rustix::event::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::descriptor::receive;
use crate::record::{Measure, Record};

/// Records read at once.
pub(crate) const MAX_BUNDLE: usize = 256;

/// Why not to go on.
pub(crate) enum Stop {
    /// A bell.
    Bell,
    /// An error of a source.
    Source(Errno),
    /// An error of the target.
    Target(Errno),
    /// The target's link is down: an end of this bundle only.
    Down,
}

/// Descriptors to read from, in turns, and the bells that end it.
pub(crate) struct Sources<'a> {
    files: Vec<BorrowedFd<'a>>,
    bells: usize,
    waiting: Waiting<'a>,
    turn: usize,
}

/// A source that is ready, and whether nobody is left to write there.
#[derive(Clone, Copy)]
pub(crate) struct Ready<'a> {
    pub(crate) source: BorrowedFd<'a>,
    /// Its place among the sources.
    pub(crate) index: usize,
    hung_up: bool,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(sources: &[BorrowedFd<'a>], bells: &[BorrowedFd<'a>]) -> Result<Self, Stop> {
        let waiting = Waiting::new(&[bells, sources].concat()).map_err(Stop::Source)?;
        Ok(Self { files: sources.to_vec(), bells: bells.len(), waiting, turn: 0 })
    }

    /// Wait for one of them; the bells are looked at each time.
    pub(crate) fn wait(&mut self) -> Result<Ready<'a>, Stop> {
        let ready = loop {
            match self.waiting.wait() {
                Err(Errno::INTR) => {}
                Err(error) => return Err(Stop::Source(error)),
                Ok(ready) => break ready,
            }
        };
        let mut next: Option<(usize, bool)> = None;
        for (place, hung_up) in ready {
            let Some(index) = place.checked_sub(self.bells) else {
                return Err(Stop::Bell);
            };
            let distance = |index: usize| (index + self.files.len() - self.turn) % self.files.len();
            if next.is_none_or(|(other, _)| distance(index) < distance(other)) {
                next = Some((index, hung_up));
            }
        }
        let (index, hung_up) = next.unwrap_or_else(|| unreachable!("it waits until one is ready"));
        self.turn = (index + 1) % self.files.len();
        Ok(Ready { source: self.files[index], index, hung_up })
    }
}

/// Waits for any of some descriptors to be readable, by what is quickest for the few of which mostly one is.
#[cfg(target_os = "linux")]
struct Waiting<'a> {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    watched: PhantomData<BorrowedFd<'a>>,
}

#[cfg(target_os = "linux")]
impl<'a> Waiting<'a> {
    fn new(files: &[BorrowedFd<'a>]) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (place, file) in files.iter().enumerate() {
            epoll::add(&epoll, file, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, events: Vec::with_capacity(files.len()), watched: PhantomData })
    }

    /// The places of those that are ready, and whether they hung up.
    fn wait(&mut self) -> Result<impl Iterator<Item = (usize, bool)>, Errno> {
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), None)?;
        let place = |event: &epoll::Event| {
            let epoll::Event { flags, data } = *event;
            (data.u64() as usize, flags.contains(epoll::EventFlags::HUP))
        };
        Ok(self.events.iter().map(place))
    }
}

#[cfg(not(target_os = "linux"))]
struct Waiting<'a>(Vec<PollFd<'a>>);

#[cfg(not(target_os = "linux"))]
impl<'a> Waiting<'a> {
    fn new(files: &[BorrowedFd<'a>]) -> Result<Self, Errno> {
        Ok(Self(watched(files)))
    }

    /// The places of those that are ready, and whether they hung up.
    fn wait(&mut self) -> Result<impl Iterator<Item = (usize, bool)>, Errno> {
        poll(&mut self.0, None)?;
        let ready = self.0.iter().map(PollFd::revents).enumerate().filter(|(_, flags)| !flags.is_empty());
        Ok(ready.map(|(place, flags)| (place, flags.contains(PollFlags::HUP))))
    }
}

/// Where records come in.
pub(crate) struct Intake<'a> {
    headed: bool,
    counters: &'a [AtomicU64; 3],
    pub(crate) memory: Vec<u8>,
    /// Where in `memory` the records end that were read.
    ends: Vec<usize>,
    /// Where they are, and what they come to.
    pub(crate) bundle: Vec<Piece>,
}

/// A record in memory.
pub(crate) struct Piece {
    pub(crate) place: Range<usize>,
    pub(crate) measure: Measure,
}

impl<'a> Intake<'a> {
    /// Bundles come to `size` bytes at most.
    pub(crate) fn new(headed: bool, counters: &'a [AtomicU64; 3], size: usize) -> Self {
        let (ends, bundle) = (Vec::with_capacity(MAX_BUNDLE), Vec::with_capacity(MAX_BUNDLE));
        Self { headed, counters, memory: vec![0; size], ends, bundle }
    }

    /// Read a bundle of up to `limit` records, and return what it comes to; None where there was nothing.
    pub(crate) fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Result<Option<Measure>, Stop> {
        self.ends.clear();
        receive(ready.source, &mut self.memory, limit, &mut self.ends).map_err(Stop::Source)?;
        if self.ends.is_empty() {
            // Of what hung up nothing more will come, so that from now on waiting would not wait.
            return if ready.hung_up { Err(Stop::Source(Errno::PIPE)) } else { Ok(None) };
        }
        Ok(Some(self.take_stock()))
    }

    /// The records that were read, and what each comes to.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&[u8], Measure)> {
        self.bundle.iter().map(|piece| (&self.memory[piece.place.clone()], piece.measure))
    }

    /// Measure and count what was read.
    fn take_stock(&mut self) -> Measure {
        self.bundle.clear();
        let mut all = Measure::NOTHING;
        let mut start = 0;
        for end in &self.ends {
            let place = start..*end;
            start = *end;
            let record = &self.memory[place.clone()];
            let measure = if self.headed {
                Record::parse(record).map_or(Measure::CONTRADICTION, |record| record.measure())
            } else {
                Measure::of_packet(record)
            };
            all = all.and(measure);
            self.bundle.push(Piece { place, measure });
        }
        count(self.counters, [all.packets, all.size, 1]);
        all
    }
}

pub(crate) fn watched<'a>(bells: &[BorrowedFd<'a>]) -> Vec<PollFd<'a>> {
    bells.iter().map(|bell| PollFd::from_borrowed_fd(*bell, PollFlags::IN)).collect()
}

/// Whether something happened to one of `polled`.
pub(crate) fn any(polled: &[PollFd<'_>]) -> bool {
    polled.iter().any(|polled| !polled.revents().is_empty())
}

pub(crate) fn count<const N: usize>(counters: &[AtomicU64; N], added: [u64; N]) {
    for (counter, added) in counters.iter().zip(added) {
        counter.fetch_add(added, Ordering::Relaxed);
    }
}
