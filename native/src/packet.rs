//! Checksums and superpackets: the functions that do no I/O.
//!
//! Their twins are in `threepipe.core.packet`, `ecn`, `flow`, `superpacket` and `coalesce`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use threepipe_core::packet::checksum;
use threepipe_core::packet::coalesce::{Coalescer, Group, Plan};
use threepipe_core::packet::ecn;
use threepipe_core::packet::flow::Flow;
use threepipe_core::packet::record::{HEADER_SIZE, Measure, Record, Shape};
use threepipe_core::packet::split::{Segments, complete, complete_packet};

use crate::buffer::{Buffers, Cutter, Trimmer, new_memory, view_of};
use crate::error::{Error, Result};

/// The bytes to process from which on the GIL is released. Processing fewer takes less time than releasing it.
const WORTH_DETACHING: usize = 1 << 15;

#[pyfunction]
#[pyo3(signature = (data, initial = 0))]
pub fn internet_checksum(py: Python<'_>, data: &Bound<'_, PyAny>, initial: u64) -> Result<u16> {
    let buffers = Buffers::of(data)?;
    let data = buffers.slice(0);
    Ok(detach(py, data.len(), WORTH_DETACHING, || checksum::internet_checksum(data, initial)))
}

/// Source, destination, protocol, source port, destination port, true for a fragment, offset of the protocol's header.
type FlowFields<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u8, u16, u16, bool, usize);

#[pyfunction]
pub fn flow_fields<'py>(py: Python<'py>, packet: &Bound<'py, PyAny>) -> Result<Option<FlowFields<'py>>> {
    let buffers = Buffers::of(packet)?;
    Ok(Flow::of(buffers.slice(0)).map(|flow| {
        let (source, destination) = (PyBytes::new(py, flow.source), PyBytes::new(py, flow.destination));
        (source, destination, flow.protocol, flow.ports.0, flow.ports.1, flow.fragment, flow.start)
    }))
}

#[pyfunction]
#[pyo3(signature = (records, vnet_header = true))]
pub fn measure(records: &Bound<'_, PyAny>, vnet_header: bool) -> Result<(u64, u64, bool)> {
    let records = listed(records)?;
    let buffers = Buffers::of_all(&records)?;
    let mut all = Measure::NOTHING;
    for index in 0..records.len() {
        let record = buffers.slice(index);
        all = all.and(if vnet_header {
            Record::parse(record).ok_or(Error::Short)?.measure()
        } else {
            Measure::of_packet(record)
        });
    }
    Ok((all.packets, all.size, all.valid))
}

#[pyfunction]
pub fn split<'py>(py: Python<'py>, records: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
    let records = listed(records)?;
    let mut buffers = Buffers::of_all(&records)?;
    let parsed = (0..records.len())
        .map(|index| Record::parse(buffers.slice(index)).ok_or(Error::Short))
        .collect::<Result<Vec<_>>>()?;

    // First write all bytes, then make the views of them.
    let (mut size, mut work, mut count) = (0, 0, 0);
    for record in &parsed {
        let measure = record.measure();
        count += measure.packets as usize;
        match record.shape {
            Shape::Super(_) => size += measure.size as usize,
            Shape::Partial(_) => work += record.length,
            Shape::Plain | Shape::Malformed => {}
        }
    }
    work += size;
    let memory =
        new_memory(py, size, |memory| detach(py, work, WORTH_DETACHING, || fill(&mut buffers, &parsed, memory)))?;
    drop(buffers);

    let mut memory = Cutter::new(&memory)?;
    let header = Trimmer::new(py, HEADER_SIZE)?;
    let mut used = 0;
    let mut packets = Vec::with_capacity(count);
    for (object, record) in records.iter().zip(&parsed) {
        match record.shape {
            Shape::Malformed => {}
            Shape::Plain | Shape::Partial(_) => packets.push(header.trim(object)?),
            Shape::Super(layout) => {
                for index in 0..layout.segments(record.length) {
                    used += layout.segment_size(record.length, index);
                    packets.push(memory.cut(used)?);
                }
            }
        }
    }
    Ok(packets)
}

#[pyfunction]
pub fn extract<'py>(py: Python<'py>, records: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyBytes>>> {
    let records = listed(records)?;
    let buffers = Buffers::of_all(&records)?;
    let mut packets = Vec::with_capacity(records.len());
    for index in 0..records.len() {
        extract_into(py, buffers.slice(index), &mut packets)?;
    }
    Ok(packets)
}

/// Append copies of the packets that a record stands for to `packets`.
pub fn extract_into<'py>(py: Python<'py>, bytes: &[u8], packets: &mut Vec<Bound<'py, PyBytes>>) -> Result<()> {
    let record = Record::parse(bytes).ok_or(Error::Short)?;
    match record.shape {
        Shape::Malformed => {}
        Shape::Plain => packets.push(PyBytes::new(py, &bytes[HEADER_SIZE..])),
        Shape::Partial(partial) => packets.push(PyBytes::new_with(py, record.length, |packet| {
            packet.copy_from_slice(&bytes[HEADER_SIZE..]);
            complete_packet(packet, &partial);
            Ok(())
        })?),
        Shape::Super(layout) => {
            let segments = Segments::new(bytes, layout);
            for index in 0..segments.count() {
                packets.push(PyBytes::new_with(py, segments.size(index), |packet| {
                    segments.write(index, packet);
                    Ok(())
                })?);
            }
        }
    }
    Ok(())
}

/// Complete checksums in the records themselves, and write the segments of superpackets to `memory`.
fn fill(buffers: &mut Buffers, parsed: &[Record], mut memory: &mut [u8]) -> Result<()> {
    for (index, record) in parsed.iter().enumerate() {
        match record.shape {
            Shape::Plain | Shape::Malformed => {}
            Shape::Partial(_) => {
                let bytes = buffers.slice_mut(index)?;
                // Parse again: if two records share memory, the checksum was completed before.
                if let Some(Record { shape: Shape::Partial(partial), .. }) = Record::parse(bytes) {
                    complete(bytes, &partial);
                }
            }
            Shape::Super(layout) => {
                let segments = Segments::new(buffers.slice(index), layout);
                for index in 0..segments.count() {
                    let target = memory.split_off_mut(..segments.size(index)).unwrap_or_default();
                    segments.write(index, target);
                }
            }
        }
    }
    Ok(())
}

#[pyfunction]
pub fn coalesce<'py>(
    py: Python<'py>,
    packets: &Bound<'py, PyAny>,
    vnet_header: bool,
    udp: bool,
) -> Result<Vec<Bound<'py, PyAny>>> {
    let packets = listed(packets)?;
    let buffers = Buffers::of_all(&packets)?;
    let pieces = buffers.slices();
    let work = pieces.iter().map(|piece| piece.len()).sum();
    let mut coalescer = Coalescer::default();
    let plan = detach(py, work, WORTH_DETACHING, || coalescer.plan(&pieces, vnet_header, udp));

    records_of(&plan, plan.groups(), &packets, &pieces, vnet_header)
}

/// Return the records of `groups`, which are some of the plan's. One that was not merged stays the same object.
pub fn records_of<'py>(
    plan: &Plan<'_>,
    groups: &[Group],
    packets: &[Bound<'py, PyAny>],
    pieces: &[&[u8]],
    vnet_header: bool,
) -> Result<Vec<Bound<'py, PyAny>>> {
    let [first, ..] = packets else { return Ok(Vec::new()) };
    let py = first.py();
    let is_new = |group: &&Group| !vnet_header || group.is_merged();
    let size = groups.iter().filter(is_new).map(|group| group.size(pieces, vnet_header)).sum();
    let memory = new_memory(py, size, |mut memory| {
        detach(py, size, WORTH_DETACHING, || {
            for group in groups.iter().filter(is_new) {
                let target = memory.split_off_mut(..group.size(pieces, vnet_header)).unwrap_or_default();
                plan.write(group, pieces, vnet_header, target);
            }
        });
        Ok(())
    })?;

    let mut memory = Cutter::new(&memory)?;
    let mut used = 0;
    groups
        .iter()
        .map(|group| {
            if is_new(&group) {
                used += group.size(pieces, vnet_header);
                memory.cut(used)
            } else {
                view_of(&packets[group.first()])
            }
        })
        .collect()
}

#[pyfunction]
pub fn combine_ecn<'py>(packets: &Bound<'py, PyAny>, outer: u8) -> Result<Vec<Bound<'py, PyAny>>> {
    let mut packets = listed(packets)?;
    let mut buffers = Buffers::of_all(&packets)?;
    let mut kept = Vec::with_capacity(packets.len());
    for (index, packet) in packets.drain(..).enumerate() {
        if ecn::combine(buffers.slice_mut(index)?, outer) {
            kept.push(packet);
        }
    }
    Ok(kept)
}

/// Return references to the objects of a sequence.
pub fn listed<'py>(sequence: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = sequence.cast::<PyList>() {
        return Ok(list.iter().collect());
    }
    Ok(sequence.try_iter()?.collect::<PyResult<_>>()?)
}

/// Do `work`, without the GIL if it processes at least `worth` bytes.
pub fn detach<T: Send>(py: Python<'_>, bytes: usize, worth: usize, work: impl Send + FnOnce() -> T) -> T {
    if bytes < worth { work() } else { py.detach(work) }
}
