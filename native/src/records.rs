//! A stream of records as an end of the pump. See `RecordsEnd` in `threepipe.core.pump`.

use std::os::fd::OwnedFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::endpoints::records::{State, Stream, Turn};

use crate::buffer::Buffers;
use crate::error::Result;
use crate::file::File;

/// A stream of whose files the pump has duplicates.
pub struct Records {
    pub reader: OwnedFd,
    pub writer: OwnedFd,
    pub stream: Stream,
}

impl Records {
    /// Read a `RecordsEnd`.
    pub fn of(end: &Bound<'_, PyAny>) -> Result<Self> {
        let py = end.py();
        let unread = end.getattr(intern!(py, "unread"))?;
        Ok(Self {
            reader: File::of(&end.getattr(intern!(py, "reader"))?)?.duplicate()?,
            writer: File::of(&end.getattr(intern!(py, "writer"))?)?.duplicate()?,
            stream: Stream::new(Buffers::of(&unread)?.slice(0).to_vec()),
        })
    }

    /// Set `left`: bytes unread, bytes unsent, and None or an errno if it is the owner's turn.
    pub fn report(self, end: &Bound<'_, PyAny>) -> Result<()> {
        let py = end.py();
        let State { unread, unsent, turn } = self.stream.into_state();
        let error = turn.map(|turn| if let Turn::Failed(error) = turn { error.raw_os_error() } else { 0 });
        Ok(end.setattr(intern!(py, "left"), (PyBytes::new(py, &unread), PyBytes::new(py, &unsent), error))?)
    }
}
