//! Python's files as descriptors. One of three modules with unsafe code.

#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use pyo3::intern;
use pyo3::prelude::*;
use rustix::io::fcntl_dupfd_cloexec;

use crate::error::{Error, Result};

/// A reference to a file, and its descriptor.
pub struct File {
    _object: Py<PyAny>,
    number: i32,
}

impl File {
    /// Take the descriptor of `object`, by its method `fileno`.
    pub fn of(object: &Bound<'_, PyAny>) -> Result<Self> {
        let number: i32 = object.call_method0(intern!(object.py(), "fileno"))?.extract()?;
        if number < 0 {
            return Err(Error::NotDescriptor(number));
        }
        Ok(Self { _object: object.clone().unbind(), number })
    }

    /// Return the descriptor, for a system call that ends soon.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is not negative. The object is referenced, so the file is open unless other code closes
        // it explicitly. A system call then fails or meets the file that was opened instead, as with every file of
        // Python. No memory depends on it.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    /// Duplicate the descriptor, for long use: no other code can close the duplicate.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        Ok(fcntl_dupfd_cloexec(self.descriptor(), 0)?)
    }
}
