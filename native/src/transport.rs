//! Keypairs of `WireGuard` that seal and open bundles, and the traffic of a peer.
//!
//! The twin is `threepipe.core.transport`.

use std::net::IpAddr;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use threepipe_core::wireguard::sealing::{KEY_SIZE, Messages};
use threepipe_core::wireguard::transport::{NotSealed, STATE_SIZE};
use threepipe_core::wireguard::{traffic, transport};

use crate::buffer::{Buffers, Cutter, new_memory, piece, view_of};
use crate::error::{Error, Result};
use crate::packet::{detach, listed};

/// The bytes to seal or open from which on the GIL is released: some microseconds of work.
const WORTH_DETACHING: usize = 1 << 12;

type Runs<'py> = Vec<(Bound<'py, PyAny>, usize, u8)>;
type Opened<'py> = (Vec<Bound<'py, PyAny>>, Vec<(Bound<'py, PyBytes>, usize)>, usize, usize, usize);

#[pyclass(frozen)]
pub struct Transport(pub Arc<transport::Transport>);

#[pymethods]
impl Transport {
    #[new]
    fn new(
        send_key: &Bound<'_, PyAny>,
        receive_key: &Bound<'_, PyAny>,
        local_index: u32,
        remote_index: u32,
    ) -> Result<Self> {
        let keys = Buffers::of_all(&[send_key.clone(), receive_key.clone()])?;
        transport::Transport::new(keys.slice(0), keys.slice(1), local_index, remote_index)
            .map(|transport| Self(Arc::new(transport)))
            .ok_or(Error::KeySize(KEY_SIZE))
    }

    #[getter]
    fn local_index(&self) -> u32 {
        self.0.local_index()
    }

    #[getter]
    fn remote_index(&self) -> u32 {
        self.0.remote_index()
    }

    #[getter]
    fn counter(&self) -> u64 {
        self.0.counter()
    }

    #[setter]
    fn set_counter(&self, counter: u64) {
        self.0.set_counter(counter);
    }

    fn reserve(&self, messages: u64) -> Option<u64> {
        self.0.reserve(messages)
    }

    fn seal<'py>(
        &self,
        py: Python<'py>,
        counter: u64,
        count: u64,
        records: &Bound<'py, PyAny>,
        vnet_header: bool,
        mtu: usize,
    ) -> Result<Runs<'py>> {
        let records = listed(records)?;
        let buffers = Buffers::of_all(&records)?;
        let messages = Messages::new(buffers.slices(), vnet_header, mtu).ok_or(Error::Short)?;
        let size = messages.size();
        let counters = counter..counter.saturating_add(count);
        let mut sealed = Ok(());
        let memory = new_memory(py, size, |memory| {
            sealed = detach(py, size, WORTH_DETACHING, || self.0.seal(&messages, counters, memory));
            if sealed.is_err() {
                memory.fill(0);
            }
            Ok(())
        })?;
        match sealed {
            Ok(()) => {}
            Err(NotSealed::Wiped) => return Ok(Vec::new()),
            Err(NotSealed::Counters) => return Err(Error::Counters { messages: messages.count(), counters: count }),
        }
        let mut memory = Cutter::new(&memory)?;
        let mut used = 0;
        messages
            .runs()
            .iter()
            .map(|run| {
                used += run.bytes;
                Ok((memory.cut(used)?, run.size, run.ecn))
            })
            .collect()
    }

    fn open<'py>(&self, py: Python<'py>, memory: &Bound<'py, PyAny>, size: usize) -> Result<Opened<'py>> {
        let opened = {
            let mut buffers = Buffers::of(memory)?;
            let bytes = buffers.slice_mut(0)?;
            detach(py, bytes.len(), WORTH_DETACHING, || self.0.open(bytes, size))
        };
        let view = view_of(memory)?;
        let packets =
            opened.packets.iter().map(|(start, end)| piece(&view, *start, *end)).collect::<Result<Vec<_>>>()?;
        let sources = opened.sources.iter().map(|(source, count)| (to_bytes(py, *source), *count)).collect();
        Ok((packets, sources, opened.used, opened.authentic, opened.bytes))
    }

    fn wipe(&self) {
        self.0.wipe();
    }

    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        PyByteArray::new_with(py, STATE_SIZE, |memory| {
            let written = memory.first_chunk_mut().is_some_and(|state| self.0.write_state(state));
            written.then_some(()).ok_or_else(|| Error::Wiped.into())
        })
    }

    #[staticmethod]
    fn from_state(state: &Bound<'_, PyAny>) -> Result<Self> {
        let state = Buffers::of(state)?;
        transport::Transport::from_state(state.slice(0))
            .map(|transport| Self(Arc::new(transport)))
            .ok_or(Error::StateSize(STATE_SIZE))
    }
}

/// Return the bytes of an address.
pub fn to_bytes(py: Python<'_>, address: IpAddr) -> Bound<'_, PyBytes> {
    match address {
        IpAddr::V4(address) => PyBytes::new(py, &address.octets()),
        IpAddr::V6(address) => PyBytes::new(py, &address.octets()),
    }
}

#[pyclass(frozen)]
#[derive(Default)]
pub struct Traffic(pub Arc<traffic::Traffic>);

#[pymethods]
impl Traffic {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn sent(&self, now: f64, data: bool, size: u64) -> bool {
        self.0.sent(now, data, size)
    }

    fn count_sent(&self, size: u64) {
        self.0.notes().tx_bytes += size;
    }

    fn received(&self, now: f64, data: bool, size: u64) -> bool {
        self.0.received(now, data, size)
    }

    #[getter]
    fn rx_bytes(&self) -> u64 {
        self.0.notes().rx_bytes
    }

    #[getter]
    fn tx_bytes(&self) -> u64 {
        self.0.notes().tx_bytes
    }

    #[getter]
    fn unanswered_since(&self) -> Option<f64> {
        self.0.notes().unanswered_since
    }

    #[setter]
    fn set_unanswered_since(&self, at: Option<f64>) {
        self.0.notes().unanswered_since = at;
    }

    #[getter]
    fn keepalive_owed_since(&self) -> Option<f64> {
        self.0.notes().keepalive_owed_since
    }

    #[setter]
    fn set_keepalive_owed_since(&self, at: Option<f64>) {
        self.0.notes().keepalive_owed_since = at;
    }

    #[getter]
    fn need_another_keepalive(&self) -> bool {
        self.0.notes().need_another_keepalive
    }

    #[setter]
    fn set_need_another_keepalive(&self, needed: bool) {
        self.0.notes().need_another_keepalive = needed;
    }

    #[getter]
    fn last_traversal(&self) -> f64 {
        self.0.notes().last_traversal
    }

    #[setter]
    fn set_last_traversal(&self, at: f64) {
        self.0.notes().last_traversal = at;
    }

    #[getter]
    fn check_scheduled(&self) -> bool {
        self.0.notes().check_scheduled
    }

    #[setter]
    fn set_check_scheduled(&self, scheduled: bool) {
        self.0.notes().check_scheduled = scheduled;
    }
}
