//! The end of forwarding, and the way it reaches the loop.

use std::error::Error;
use std::ops::ControlFlow;

use rustix::io::Errno;

/// An exception that the caller's code raised.
pub type Raised = Box<dyn Error + Send + Sync>;

/// The reason to stop forwarding.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A bell is readable. This is not an error.
    Bell,
    /// Receiving failed, or waiting for something to receive.
    Source(Errno),
    /// Sending failed, or waiting for room.
    Target(Errno),
    /// The caller's code raised an exception. Only a handler can.
    #[cfg(target_os = "linux")]
    Raised(Raised),
}

/// A result, or the reason to stop.
pub(crate) type Flow<T = ()> = ControlFlow<Stop, T>;

/// Stop for an exception that the caller's code raised.
#[cfg(target_os = "linux")]
pub(crate) fn raised<T>(raised: Raised) -> Flow<T> {
    Flow::Break(Stop::Raised(raised))
}
