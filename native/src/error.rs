//! The errors of this crate, and the exceptions they become.

use pyo3::PyErr;
#[cfg(unix)]
use pyo3::Python;
#[cfg(unix)]
use pyo3::exceptions::PyOSError;
use pyo3::exceptions::{PyTypeError, PyValueError};
#[cfg(unix)]
use pyo3::types::PyAnyMethods;

pub enum Error {
    /// An exception of Python, passed on.
    Python(PyErr),
    /// An error of the operating system.
    #[cfg(unix)]
    System(rustix::io::Errno),
    /// A record is too short for its header.
    Short,
    /// Memory to be written is read-only.
    ReadOnly,
    /// A key does not have this size.
    KeySize(usize),
    /// The state of a keypair does not have this size.
    StateSize(usize),
    /// The keys are wiped.
    Wiped,
    /// Packets need more counters than were reserved for them, or others.
    Counters { messages: u64, counters: u64 },
    /// A buffer does not hold single bytes.
    NotBytes,
    /// The address of a function or a session is 0.
    NoAddress,
    /// Counters are not an `array("Q")` of this length.
    #[cfg(unix)]
    NotCounters(usize),
    /// Two ends of a pump do not fit together.
    #[cfg(unix)]
    Mismatch,
    /// A number is not a file descriptor.
    #[cfg(unix)]
    NotDescriptor(i32),
}

pub type Result<T> = std::result::Result<T, Error>;

impl From<PyErr> for Error {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

#[cfg(unix)]
impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno)
    }
}

#[cfg(unix)]
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&error) {
            Some(errno) => Self::System(errno),
            None => Self::Python(error.into()),
        }
    }
}

#[cfg(unix)]
impl From<threepipe_core::pump::Error> for Error {
    fn from(error: threepipe_core::pump::Error) -> Self {
        match error {
            threepipe_core::pump::Error::System(error) => error.into(),
            threepipe_core::pump::Error::Mismatch => Self::Mismatch,
        }
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Python(error) => error,
            #[cfg(unix)]
            Error::System(errno) => os_error(errno.raw_os_error()),
            Error::Short => PyValueError::new_err("a record is too short for its virtio header of 10 bytes"),
            Error::ReadOnly => PyTypeError::new_err("cannot modify read-only memory"),
            Error::KeySize(size) => PyValueError::new_err(format!("invalid key: expected {size} bytes")),
            Error::StateSize(size) => PyValueError::new_err(format!("invalid state: expected {size} bytes")),
            Error::Wiped => PyValueError::new_err("the transport has no state, because its keys are wiped"),
            Error::Counters { messages, counters } => PyValueError::new_err(format!(
                "cannot seal {messages} messages with {counters} counters; reserve as many as there are packets"
            )),
            Error::NotBytes => PyTypeError::new_err("a buffer of single bytes is required"),
            Error::NoAddress => PyValueError::new_err("the address of a function or a session is 0"),
            #[cfg(unix)]
            Error::NotCounters(length) => {
                PyTypeError::new_err(format!("invalid counters: expected an array of typecode 'Q' with {length} items"))
            }
            #[cfg(unix)]
            Error::Mismatch => PyTypeError::new_err("cannot pump between these ends; see threepipe.core.ends.joinable"),
            #[cfg(unix)]
            Error::NotDescriptor(number) => PyValueError::new_err(format!("{number} is not a file descriptor")),
        }
    }
}

/// Make an `OSError` with Python's text for `errno`. Python chooses the subclass.
#[cfg(unix)]
fn os_error(errno: i32) -> PyErr {
    Python::attach(|py| {
        let text = py.import("os").and_then(|os| os.call_method1("strerror", (errno,)));
        match text {
            Ok(text) => PyOSError::new_err((errno, text.unbind())),
            Err(error) => error,
        }
    })
}
