//! Descriptors: records read and written, and the pump.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyo3::intern;
use pyo3::prelude::*;
use threepipe_core::{descriptor, pump as core};

use crate::buffer::{Buffers, Counters, Cutter};
use crate::error::Result;
use crate::file::File;
use crate::offload::listed;

#[pyfunction]
pub fn receive<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: isize,
) -> Result<Vec<Bound<'py, PyAny>>> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let file = File::of(file)?;
    let mut buffers = Buffers::of(memory)?;
    let bytes = buffers.slice_mut(0)?;
    let mut ends = Vec::new();
    let descriptor = file.descriptor();
    py.detach(|| descriptor::receive(descriptor, bytes, limit, &mut ends))?;
    let mut memory = Cutter::new(memory)?;
    ends.into_iter().map(|end| memory.cut(end)).collect()
}

#[pyfunction]
pub fn send(py: Python<'_>, file: &Bound<'_, PyAny>, records: &Bound<'_, PyAny>) -> Result<(usize, i32)> {
    let file = File::of(file)?;
    let buffers = Buffers::of_all(&listed(records)?)?;
    let slices = buffers.slices();
    let descriptor = file.descriptor();
    let (written, error) = py.detach(|| descriptor::send(descriptor, slices));
    Ok((written, error.map_or(0, rustix::io::Errno::raw_os_error)))
}

#[pyfunction]
pub fn pump<'py>(
    py: Python<'py>,
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    bells: &Bound<'py, PyAny>,
    headed: bool,
    udp: bool,
) -> Result<(i32, Option<Bound<'py, PyAny>>)> {
    let ends = [End::of(left)?, End::of(right)?];
    let bells = duplicates(bells)?;
    let ended = py.detach(|| {
        let sources = ends.each_ref().map(|end| borrowed(&end.sources));
        let [left, right] = [ends[0].lend(&sources[0]), ends[1].lend(&sources[1])];
        core::pump(&left, &right, &borrowed(&bells), headed, udp)
    })?;
    for (end, coalescing) in [left, right].into_iter().zip(ended.coalescing) {
        if !coalescing {
            end.setattr(intern!(py, "coalescing"), false)?;
        }
    }
    Ok(match ended.error {
        None => (0, None),
        Some((error, core::Place::Left)) => (error.raw_os_error(), Some(left.clone())),
        Some((error, core::Place::Right)) => (error.raw_os_error(), Some(right.clone())),
    })
}

/// An end of a pump, by the attributes of `threepipe.core.pump.End`.
pub struct End {
    pub sources: Vec<OwnedFd>,
    target: OwnedFd,
    received: Counters<3>,
    sent: Counters<4>,
    coalescing: bool,
}

impl End {
    /// With descriptors of its own: it may take days, and nobody is to close these meanwhile and have others
    /// opened by the same numbers.
    pub fn of(end: &Bound<'_, PyAny>) -> Result<Self> {
        let py = end.py();
        Ok(Self {
            sources: duplicates(&end.getattr(intern!(py, "sources"))?)?,
            target: File::of(&end.getattr(intern!(py, "target"))?)?.duplicate()?,
            received: Counters::of(&end.getattr(intern!(py, "received"))?)?,
            sent: Counters::of(&end.getattr(intern!(py, "sent"))?)?,
            coalescing: end.getattr(intern!(py, "coalescing"))?.extract()?,
        })
    }

    pub fn lend<'a>(&'a self, sources: &'a [BorrowedFd<'a>]) -> core::End<'a> {
        core::End {
            sources,
            target: self.target.as_fd(),
            received: self.received.get(),
            sent: self.sent.get(),
            coalescing: self.coalescing,
        }
    }
}

pub fn duplicates(files: &Bound<'_, PyAny>) -> Result<Vec<OwnedFd>> {
    listed(files)?.iter().map(|file| File::of(file)?.duplicate()).collect()
}

pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}
