//! What can go wrong, and the exception it becomes.

use pyo3::PyErr;
#[cfg(unix)]
use pyo3::Python;
#[cfg(unix)]
use pyo3::exceptions::PyOSError;
use pyo3::exceptions::{PyTypeError, PyValueError};
#[cfg(unix)]
use pyo3::types::PyAnyMethods;

pub enum Error {
    /// Python's own; passed on.
    Python(PyErr),
    /// The operating system's.
    #[cfg(unix)]
    System(rustix::io::Errno),
    /// A record that is too short for its header.
    Short,
    /// Memory that was to be changed and may not be.
    ReadOnly,
    /// A key or a window of another size than it has to have.
    Size(&'static str, usize),
    /// A buffer of something else than single bytes.
    NotBytes,
    /// A function or a session at address 0.
    NoAddress,
    /// Counters that are no `array("Q")` of their length.
    #[cfg(unix)]
    NotCounters(usize),
    /// A number that is no file descriptor.
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

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Python(error) => error,
            #[cfg(unix)]
            Error::System(errno) => os_error(errno.raw_os_error()),
            Error::Short => PyValueError::new_err("a record has a virtio header of 10 bytes at least"),
            Error::ReadOnly => PyTypeError::new_err("cannot modify read-only memory"),
            Error::Size(what, size) => PyValueError::new_err(format!("a {what} has {size} bytes")),
            Error::NotBytes => PyTypeError::new_err("a buffer of single bytes is required"),
            Error::NoAddress => PyValueError::new_err("nothing is at address 0"),
            #[cfg(unix)]
            Error::NotCounters(length) => {
                PyTypeError::new_err(format!("counters are an array of typecode 'Q' and {length} long"))
            }
            #[cfg(unix)]
            Error::NotDescriptor(number) => PyValueError::new_err(format!("{number} is no file descriptor")),
        }
    }
}

/// `OSError` with the text that Python has for `errno`; Python chooses its subclass.
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
