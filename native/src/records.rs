//! A stream of records as an end of the pump. See `RecordsEnd` in `threepipe.core.ends`.

use std::os::fd::OwnedFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::endpoints::records::{self, State, Stream, Turn};
use threepipe_core::pump::Raised;

use crate::buffer::Buffers;
use crate::error::Result;
use crate::file::File;

/// A stream of whose files the pump has duplicates.
pub struct Records {
    pub reader: OwnedFd,
    pub writer: OwnedFd,
    pub stream: Stream,
    pub handler: Option<Handler>,
}

impl Records {
    /// Read a `RecordsEnd`.
    pub fn of(end: &Bound<'_, PyAny>) -> Result<Self> {
        let py = end.py();
        let unread = end.getattr(intern!(py, "unread"))?;
        let handler = end.getattr(intern!(py, "handler"))?;
        Ok(Self {
            reader: File::of(&end.getattr(intern!(py, "reader"))?)?.duplicate()?,
            writer: File::of(&end.getattr(intern!(py, "writer"))?)?.duplicate()?,
            stream: Stream::new(Buffers::of(&unread)?.slice(0).to_vec()),
            handler: (!handler.is_none()).then(|| Handler(handler.unbind())),
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

/// Calls the methods of a `threepipe.core.ends.RecordsHandler`, from threads of the pump.
pub struct Handler(Py<PyAny>);

impl records::Handler for Handler {
    fn receive(&self, memory: &mut [u8]) -> std::result::Result<Option<usize>, Raised> {
        Python::attach(|py| {
            let handled = self.0.bind(py).call_method1(intern!(py, "receive_bytes"), (memory.len(),))?;
            if handled.is_none() {
                return Ok(None);
            }
            let buffers = Buffers::of(&handled).map_err(PyErr::from)?;
            let bytes = buffers.slice(0);
            memory[..bytes.len()].copy_from_slice(bytes);
            Ok(Some(bytes.len()))
        })
    }

    fn send(&self, data: &[u8]) -> std::result::Result<Option<bool>, Raised> {
        Python::attach(|py| {
            let handled = self.0.bind(py).call_method1(intern!(py, "send_bytes"), (PyBytes::new(py, data),))?;
            Ok(handled.extract()?)
        })
    }
}
