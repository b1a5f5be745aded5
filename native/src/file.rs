//! Python's files as descriptors. One of three unsafe modules.

#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use pyo3::intern;
use pyo3::prelude::*;
use rustix::io::fcntl_dupfd_cloexec;

use crate::error::{Error, Result};

/// A file that is held, and its descriptor.
pub struct File<'py> {
    _object: &'py Bound<'py, PyAny>,
    number: i32,
}

impl<'py> File<'py> {
    pub fn of(object: &'py Bound<'py, PyAny>) -> Result<Self> {
        let number: i32 = object.call_method0(intern!(object.py(), "fileno"))?.extract()?;
        if number < 0 {
            return Err(Error::NotDescriptor(number));
        }
        Ok(Self { _object: object, number })
    }

    /// The descriptor, for system calls that are over soon.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is not negative. The file is held, and so is open unless somebody closes it by
        // hand; a system call then fails, or meets whatever was opened instead, as it is with every file of
        // Python's. No memory depends on it.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    /// A descriptor of the same file that nobody can close, for those that are not.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        Ok(fcntl_dupfd_cloexec(self.descriptor(), 0)?)
    }
}
