//! Waiting for sources and bells.

#[cfg(target_os = "linux")]
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use rustix::buffer::spare_capacity;
#[cfg(target_os = "linux")]
use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::io::stop::{Flow, Stop};

/// Files to receive from, which take turns, and the bells that stop it.
pub(crate) struct Sources<'a> {
    files: Vec<BorrowedFd<'a>>,
    bells: usize,
    poller: Poller<'a>,
    turn: usize,
}

/// A source that is ready.
#[derive(Clone, Copy)]
pub(crate) struct Ready<'a> {
    pub(crate) source: BorrowedFd<'a>,
    /// Its index among the sources.
    pub(crate) index: usize,
    /// True if its other side is closed, so that nothing more will come once it is empty.
    pub(crate) hung_up: bool,
    /// True if it has an error to report.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) failed: bool,
}

impl<'a> Sources<'a> {
    /// Prepare to wait for `sources` and `bells`.
    ///
    /// # Errors
    ///
    /// Return the system's error if it cannot wait for one of them.
    pub(crate) fn new(sources: &[BorrowedFd<'a>], bells: &[BorrowedFd<'a>]) -> Result<Self, Errno> {
        let poller = Poller::new(&[bells, sources].concat())?;
        Ok(Self { files: sources.to_vec(), bells: bells.len(), poller, turn: 0 })
    }

    /// Wait for a source. Each call checks the bells first.
    pub(crate) fn wait(&mut self) -> Flow<Ready<'a>> {
        let ready = loop {
            match self.poller.wait() {
                Err(Errno::INTR) => {}
                Err(error) => return Flow::Break(Stop::Source(error)),
                Ok(ready) => break ready,
            }
        };
        let mut next: Option<(usize, State)> = None;
        for (position, state) in ready {
            let Some(index) = position.checked_sub(self.bells) else {
                return Flow::Break(Stop::Bell);
            };
            let distance = |index: usize| (index + self.files.len() - self.turn) % self.files.len();
            if next.is_none_or(|(other, _)| distance(index) < distance(other)) {
                next = Some((index, state));
            }
        }
        let (index, State { hung_up, failed }) = next.expect("waiting without a timeout returns when a file is ready");
        self.turn = (index + 1) % self.files.len();
        Flow::Continue(Ready { source: self.files[index], index, hung_up, failed })
    }
}

/// The state of a file that is ready, besides.
#[derive(Clone, Copy)]
struct State {
    hung_up: bool,
    failed: bool,
}

/// Waits until any of some files is readable. `epoll` is the quickest way for a few files of which mostly one is ready.
#[cfg(target_os = "linux")]
struct Poller<'a> {
    epoll: OwnedFd,
    files: usize,
    watched: PhantomData<BorrowedFd<'a>>,
}

#[cfg(target_os = "linux")]
impl<'a> Poller<'a> {
    fn new(files: &[BorrowedFd<'a>]) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (position, file) in files.iter().enumerate() {
            epoll::add(&epoll, file, epoll::EventData::new_u64(position as u64), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, files: files.len(), watched: PhantomData })
    }

    /// Return the positions of the files that are ready, with their states.
    fn wait(&mut self) -> Result<impl Iterator<Item = (usize, State)> + use<>, Errno> {
        let mut events = Vec::with_capacity(self.files);
        epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
        let position = |epoll::Event { flags, data }| {
            let (hup, err) = (epoll::EventFlags::HUP, epoll::EventFlags::ERR);
            (data.u64() as usize, State { hung_up: flags.contains(hup), failed: flags.contains(err) })
        };
        Ok(events.into_iter().map(position))
    }
}

/// Waits until any of some files is readable.
#[cfg(not(target_os = "linux"))]
struct Poller<'a>(Vec<PollFd<'a>>);

#[cfg(not(target_os = "linux"))]
impl<'a> Poller<'a> {
    #[allow(clippy::unnecessary_wraps)] // Linux needs a descriptor for it, which may fail.
    fn new(files: &[BorrowedFd<'a>]) -> Result<Self, Errno> {
        Ok(Self(readable(files)))
    }

    /// Return the positions of the files that are ready, with their states.
    fn wait(&mut self) -> Result<impl Iterator<Item = (usize, State)>, Errno> {
        poll(&mut self.0, None)?;
        let ready = self.0.iter().map(PollFd::revents).enumerate().filter(|(_, flags)| !flags.is_empty());
        let state = |flags: PollFlags| State {
            hung_up: flags.contains(PollFlags::HUP),
            failed: flags.contains(PollFlags::ERR),
        };
        Ok(ready.map(move |(position, flags)| (position, state(flags))))
    }
}

/// The time to wait while the system has no memory: a target that accepts nothing then says that it is writable.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Waits for room at a target, or for a pause to end, while it watches the bells.
pub(crate) struct RoomWait<'a> {
    /// The bells, and space for a target.
    polled: Vec<PollFd<'a>>,
    /// Is called with true when a wait begins, and with false when it has ended.
    notice: Box<dyn Fn(bool) + Send + 'a>,
}

impl<'a> RoomWait<'a> {
    pub(crate) fn new(bells: &[BorrowedFd<'a>], notice: impl Fn(bool) + Send + 'a) -> Self {
        let mut polled = readable(bells);
        polled.reserve_exact(1);
        Self { polled, notice: Box::new(notice) }
    }

    /// Wait until `target` is writable.
    pub(crate) fn wait(&mut self, target: BorrowedFd<'a>) -> Flow {
        self.polled.push(PollFd::from_borrowed_fd(target, PollFlags::OUT));
        let result = self.poll(None);
        self.polled.pop();
        self.check(result)
    }

    /// Wait for a moment, as the system has no memory.
    pub(crate) fn pause(&mut self) -> Flow {
        let result = self.poll(Some(&PAUSE));
        self.check(result)
    }

    fn poll(&mut self, timeout: Option<&Timespec>) -> Result<usize, Errno> {
        (self.notice)(true);
        let result = poll(&mut self.polled, timeout);
        (self.notice)(false);
        result
    }

    /// Stop for a bell or an error; an interrupted wait is over early.
    fn check(&self, polled: Result<usize, Errno>) -> Flow {
        match polled {
            Err(Errno::INTR) => Flow::Continue(()),
            Err(error) => Flow::Break(Stop::Target(error)),
            Ok(_) if self.polled.iter().any(|bell| !bell.revents().is_empty()) => Flow::Break(Stop::Bell),
            Ok(_) => Flow::Continue(()),
        }
    }
}

fn readable<'a>(files: &[BorrowedFd<'a>]) -> Vec<PollFd<'a>> {
    files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect()
}
