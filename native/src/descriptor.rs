//! Records received from and sent to files. The twin of `threepipe.core.descriptor`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::io::descriptor;
use threepipe_core::packet::coalesce::Coalescer;

use crate::buffer::{Buffers, Cutter};
use crate::error::Result;
use crate::file::File;
use crate::packet::{extract_into, listed, records_of};

/// Read at most `limit` records into `bytes`, and return their ends.
fn fill(py: Python<'_>, file: &Bound<'_, PyAny>, bytes: &mut [u8], limit: isize) -> Result<Vec<usize>> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let file = File::of(file)?;
    let descriptor = file.descriptor();
    let mut ends = Vec::new();
    py.detach(|| descriptor::receive(descriptor, bytes, limit, &mut ends))?;
    Ok(ends)
}

#[pyfunction]
pub fn receive<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: isize,
) -> Result<Vec<Bound<'py, PyAny>>> {
    let mut buffers = Buffers::of(memory)?;
    let bytes = buffers.slice_mut(0)?;
    let ends = fill(py, file, bytes, limit)?;
    let mut memory = Cutter::new(memory)?;
    ends.into_iter().map(|end| memory.cut(end)).collect()
}

#[pyfunction]
pub fn receive_packets<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: isize,
    vnet_header: bool,
) -> Result<Vec<Bound<'py, PyBytes>>> {
    let mut buffers = Buffers::of(memory)?;
    let bytes = buffers.slice_mut(0)?;
    let ends = fill(py, file, bytes, limit)?;
    let mut packets = Vec::with_capacity(ends.len());
    let mut start = 0;
    for end in ends {
        let record = &bytes[start..end];
        if vnet_header {
            extract_into(py, record, &mut packets)?;
        } else {
            packets.push(PyBytes::new(py, record));
        }
        start = end;
    }
    Ok(packets)
}

#[pyfunction]
pub fn send(py: Python<'_>, file: &Bound<'_, PyAny>, records: &Bound<'_, PyAny>) -> Result<(usize, i32)> {
    let file = File::of(file)?;
    let buffers = Buffers::of_all(&listed(records)?)?;
    let slices = buffers.slices();
    let descriptor = file.descriptor();
    let (sent, error) = py.detach(|| descriptor::send(descriptor, slices));
    Ok((sent, error.map_or(0, rustix::io::Errno::raw_os_error)))
}

/// The records that were not sent, the number of those that were, and 0 or the error that stopped it.
type Sent<'py> = (Vec<Bound<'py, PyAny>>, usize, i32);

#[pyfunction]
pub fn send_coalesced<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    packets: &Bound<'py, PyAny>,
    vnet_header: bool,
    udp: bool,
) -> Result<Sent<'py>> {
    let file = File::of(file)?;
    let packets = listed(packets)?;
    let buffers = Buffers::of_all(&packets)?;
    let pieces = buffers.slices();
    let descriptor = file.descriptor();
    let mut coalescer = Coalescer::default();
    let (plan, (sent, error)) = py.detach(|| {
        let plan = coalescer.plan(&pieces, vnet_header, udp);
        let sent = descriptor::send_plan(descriptor, &plan, &pieces, vnet_header);
        (plan, sent)
    });
    let rest = match &plan.groups()[sent..] {
        [] => Vec::new(),
        groups => records_of(&plan, groups, &packets, &pieces, vnet_header)?,
    };
    Ok((rest, sent, error.map_or(0, rustix::io::Errno::raw_os_error)))
}
