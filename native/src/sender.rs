//! The short way for single packets to a file. Its reference is `threepipe.core.sender`.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::{write, writev};
use threepipe_core::packet::record::{HEADER_SIZE, Measure};
use threepipe_core::packet::tunnel::WIDE_HEADER_SIZE;

use crate::buffer::Buffers;
use crate::error::Result;
use crate::file::File;

/// Bytes of the longest packet that is copied behind its header: the kernel takes one piece faster than two.
const SHORT: usize = 2048;

/// It keeps the GIL, as a write of one packet never waits, and takes less time than releasing the GIL where threads
/// compete for it.
#[pyclass(frozen)]
pub struct PacketSender {
    file: File,
    /// Bytes of the virtio header in front of each packet.
    header: usize,
    stopped: AtomicBool,
    packets: AtomicU64,
    bytes: AtomicU64,
}

#[pymethods]
impl PacketSender {
    #[new]
    #[pyo3(signature = (file, vnet_header, wide = false))]
    fn new(file: &Bound<'_, PyAny>, vnet_header: bool, wide: bool) -> Result<Self> {
        let file = File::of(file)?;
        let header = if wide { WIDE_HEADER_SIZE } else { usize::from(vnet_header) * HEADER_SIZE };
        Ok(Self { file, header, stopped: AtomicBool::new(false), packets: AtomicU64::new(0), bytes: AtomicU64::new(0) })
    }

    #[getter]
    fn sent(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }

    fn send(&self, packet: &Bound<'_, PyAny>) -> bool {
        if self.stopped.load(Relaxed) {
            return false;
        }
        if let Ok(bytes) = packet.cast_exact::<PyBytes>() {
            self.write(bytes.as_bytes())
        } else {
            Buffers::of(packet).is_ok_and(|buffers| self.write(buffers.slice(0)))
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }
}

impl PacketSender {
    fn write(&self, packet: &[u8]) -> bool {
        let measure = Measure::of_packet(packet);
        if !measure.valid {
            return false;
        }
        let file = self.file.descriptor();
        let header = &[0; WIDE_HEADER_SIZE][..self.header];
        let written = if packet.len() <= SHORT {
            write(file, &[header, packet].concat())
        } else {
            writev(file, &[IoSlice::new(header), IoSlice::new(packet)])
        };
        if written.is_ok() {
            self.packets.fetch_add(1, Relaxed);
            self.bytes.fetch_add(measure.size, Relaxed);
        }
        written.is_ok()
    }
}
