//! Records received from and sent to files. The twin of `threepipe.core.descriptor`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::io::descriptor;
use threepipe_core::packet::coalesce::Coalescer;
use threepipe_core::packet::tunnel::{Tunnel, narrow};

use crate::buffer::{Buffers, Cutter, new_memory, piece, view_of};
use crate::error::Result;
use crate::file::File;
use crate::packet::{extract_into, listed, records_of};

/// Read at most `limit` records into `bytes`, and return their ends.
fn fill(py: Python<'_>, file: &Bound<'_, PyAny>, bytes: &mut [u8], limit: isize, wide: bool) -> Result<Vec<usize>> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let file = File::of(file)?;
    let descriptor = file.descriptor();
    let mut ends = Vec::new();
    py.detach(|| descriptor::receive(descriptor, bytes, limit, wide, &mut ends))?;
    Ok(ends)
}

#[pyfunction]
#[pyo3(signature = (file, memory, limit, wide = false))]
pub fn receive<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: isize,
    wide: bool,
) -> Result<Vec<Bound<'py, PyAny>>> {
    let mut buffers = Buffers::of(memory)?;
    let bytes = buffers.slice_mut(0)?;
    let ends = fill(py, file, bytes, limit, wide)?;
    if wide {
        return receive_wide(memory, bytes, &ends);
    }
    let mut memory = Cutter::new(memory)?;
    ends.into_iter().map(|end| memory.cut(end)).collect()
}

/// Return the records in `bytes`, those of `memory`, that have wide headers and the given ends. Runs get new memory.
fn receive_wide<'py>(memory: &Bound<'py, PyAny>, bytes: &mut [u8], ends: &[usize]) -> Result<Vec<Bound<'py, PyAny>>> {
    let view = view_of(memory)?;
    let mut records = Vec::with_capacity(ends.len());
    let mut start = 0;
    for end in ends {
        let record = &mut bytes[start..*end];
        if let Some(tunnel) = Tunnel::parse(record) {
            let size = tunnel.sizes().sum();
            let runs = new_memory(memory.py(), size, |target| {
                tunnel.write(target);
                Ok(())
            })?;
            let mut runs = Cutter::new(&runs)?;
            let mut used = 0;
            for size in tunnel.sizes() {
                used += size;
                records.push(runs.cut(used)?);
            }
        } else {
            records.push(piece(&view, start + narrow(record), *end)?);
        }
        start = *end;
    }
    Ok(records)
}

#[pyfunction]
#[pyo3(signature = (file, memory, limit, vnet_header, wide = false))]
pub fn receive_packets<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: isize,
    vnet_header: bool,
    wide: bool,
) -> Result<Vec<Bound<'py, PyBytes>>> {
    let mut buffers = Buffers::of(memory)?;
    let bytes = buffers.slice_mut(0)?;
    let ends = fill(py, file, bytes, limit, wide)?;
    let mut packets = Vec::with_capacity(ends.len());
    let mut start = 0;
    for end in ends {
        let record = &mut bytes[start..end];
        if wide {
            extract_wide_into(py, record, &mut packets)?;
        } else if vnet_header {
            extract_into(py, record, &mut packets)?;
        } else {
            packets.push(PyBytes::new(py, record));
        }
        start = end;
    }
    Ok(packets)
}

/// Append copies of the packets that a record with a wide header stands for to `packets`.
fn extract_wide_into<'py>(py: Python<'py>, record: &mut [u8], packets: &mut Vec<Bound<'py, PyBytes>>) -> Result<()> {
    let Some(tunnel) = Tunnel::parse(record) else {
        let start = narrow(record);
        return extract_into(py, &record[start..], packets);
    };
    let mut runs = vec![0; tunnel.sizes().sum()];
    tunnel.write(&mut runs);
    let mut rest = &runs[..];
    for size in tunnel.sizes() {
        let (run, others) = rest.split_at(size);
        extract_into(py, run, packets)?;
        rest = others;
    }
    Ok(())
}

#[pyfunction]
#[pyo3(signature = (file, records, wide = false))]
pub fn send(py: Python<'_>, file: &Bound<'_, PyAny>, records: &Bound<'_, PyAny>, wide: bool) -> Result<(usize, i32)> {
    let file = File::of(file)?;
    let buffers = Buffers::of_all(&listed(records)?)?;
    let slices = buffers.slices();
    let descriptor = file.descriptor();
    let (sent, error) = py.detach(|| descriptor::send(descriptor, slices, wide));
    Ok((sent, error.map_or(0, rustix::io::Errno::raw_os_error)))
}

/// The records that were not sent, the number of those that were, and 0 or the error that stopped it.
type Sent<'py> = (Vec<Bound<'py, PyAny>>, usize, i32);

#[pyfunction]
#[pyo3(signature = (file, packets, vnet_header, udp, wide = false))]
pub fn send_coalesced<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
    packets: &Bound<'py, PyAny>,
    vnet_header: bool,
    udp: bool,
    wide: bool,
) -> Result<Sent<'py>> {
    let file = File::of(file)?;
    let packets = listed(packets)?;
    let buffers = Buffers::of_all(&packets)?;
    let pieces = buffers.slices();
    let descriptor = file.descriptor();
    let mut coalescer = Coalescer::default();
    let (plan, (sent, error)) = py.detach(|| {
        let plan = coalescer.plan(&pieces, vnet_header, udp);
        let sent = descriptor::send_plan(descriptor, &plan, &pieces, vnet_header, wide);
        (plan, sent)
    });
    let rest = match &plan.groups()[sent..] {
        [] => Vec::new(),
        groups => records_of(&plan, groups, &packets, &pieces, vnet_header)?,
    };
    Ok((rest, sent, error.map_or(0, rustix::io::Errno::raw_os_error)))
}
