//! The pump, between ends that are read by the attributes of the classes in `threepipe.core.pump`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use threepipe_core::pump::{self as core, Ended, Side};

use crate::buffer::Counters;
use crate::error::{Error, Result};
use crate::file::File;
use crate::packet::listed;

#[pyfunction]
pub fn pump<'py>(
    py: Python<'py>,
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    bells: &Bound<'py, PyAny>,
    headed: bool,
    udp: bool,
) -> Result<(i32, Option<Bound<'py, PyAny>>)> {
    let ends = [End::of(left, headed, udp)?, End::of(right, headed, udp)?];
    let bells = duplicates(bells)?;
    let ended = py.detach(|| {
        let sources = ends.each_ref().map(|end| borrowed(&end.sources));
        let [left, right] = [ends[0].lend(&sources[0]), ends[1].lend(&sources[1])];
        core::pump(&left, &right, &borrowed(&bells))
    });
    for (object, end) in [left, right].into_iter().zip(&ends) {
        end.tell(object)?;
    }
    Ok(match ended? {
        Ended::Bell => (0, None),
        Ended::Failed(error, Side::Left) => (error.raw_os_error(), Some(left.clone())),
        Ended::Failed(error, Side::Right) => (error.raw_os_error(), Some(right.clone())),
        Ended::Raised(raised) => return Err(raised_by(raised)),
    })
}

/// Return the exception that a handler raised.
pub fn raised_by(raised: core::Raised) -> Error {
    Error::Python(
        raised.downcast::<PyErr>().map_or_else(|other| PyRuntimeError::new_err(other.to_string()), |error| *error),
    )
}

pub struct End {
    pub sources: Vec<OwnedFd>,
    target: OwnedFd,
    received: Counters<3>,
    unused: AtomicU64,
    sent: Counters<4>,
    coalescing: AtomicBool,
    vnet_header: bool,
    udp: bool,
}

impl End {
    pub fn of(end: &Bound<'_, PyAny>, vnet_header: bool, udp: bool) -> Result<Self> {
        let py = end.py();
        Ok(Self {
            sources: duplicates(&end.getattr(intern!(py, "sources"))?)?,
            target: File::of(&end.getattr(intern!(py, "target"))?)?.duplicate()?,
            received: Counters::of(&end.getattr(intern!(py, "received"))?)?,
            unused: AtomicU64::new(0),
            sent: Counters::of(&end.getattr(intern!(py, "sent"))?)?,
            coalescing: AtomicBool::new(end.getattr(intern!(py, "coalescing"))?.extract()?),
            vnet_header,
            udp,
        })
    }

    pub fn lend<'a>(&'a self, sources: &'a [BorrowedFd<'a>]) -> core::End<'a> {
        core::End::Tun(core::TunEnd {
            sources,
            target: self.target.as_fd(),
            received: core::Counters::three(self.received.get(), &self.unused),
            sent: self.sent.get().into(),
            coalescing: &self.coalescing,
            vnet_header: self.vnet_header,
            udp: self.udp,
        })
    }

    pub fn tell(&self, object: &Bound<'_, PyAny>) -> Result<()> {
        if !self.coalescing.load(Ordering::Relaxed) {
            object.setattr(intern!(object.py(), "coalescing"), false)?;
        }
        Ok(())
    }
}

/// Duplicate the descriptors of `files`: the pump may run for days, and no other code may close them meanwhile.
pub fn duplicates(files: &Bound<'_, PyAny>) -> Result<Vec<OwnedFd>> {
    listed(files)?.iter().map(|file| File::of(file)?.duplicate()).collect()
}

pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}
