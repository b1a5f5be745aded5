//! The router of a `WireGuard` device, and its loop, which calls what is above it where it does not know further.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};
use threepipe_core::datagrams::Arrival;
use threepipe_core::router::{self, Key, Rejected};
use threepipe_core::tunnel;

use crate::buffer::{Buffers, Counters};
use crate::descriptor::{End, borrowed, duplicates};
use crate::error::{Error, Result};
use crate::sealing::{Traffic, Transport, packed};

/// An address of 4 or 16 bytes, a port and a scope.
type Place<'py> = (Bound<'py, PyBytes>, u16, u32);
/// A transport, when it is over, and when its keeper wants to hear of it.
type Keypair<'py> = (Bound<'py, Transport>, f64, f64);

#[pyclass(frozen)]
#[derive(Default)]
pub struct Router(Arc<router::Router>);

#[pymethods]
impl Router {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn set_mtu(&self, mtu: usize) {
        self.0.mtu.store(mtu, Ordering::Relaxed);
    }

    fn set_peer(
        &self,
        number: u32,
        traffic: &Bound<'_, Traffic>,
        endpoint: Option<Place<'_>>,
        local: Option<Bound<'_, PyBytes>>,
        sending: Option<Keypair<'_>>,
        receiving: Vec<Keypair<'_>>,
    ) -> Result<()> {
        let endpoint = endpoint.map(|place| socket_address(&place)).transpose()?;
        let local = local.map(|local| address(local.as_bytes())).transpose()?;
        let receiving = receiving.into_iter().map(key).collect();
        self.0.set_peer(number, Arc::clone(&traffic.get().0), endpoint, local, sending.map(key), receiving);
        Ok(())
    }

    fn set_allowed(&self, number: u32, networks: Vec<(Bound<'_, PyBytes>, u8)>) -> Result<()> {
        let parse = |(bytes, length): (Bound<'_, PyBytes>, u8)| Ok((address(bytes.as_bytes())?, length));
        self.0.set_allowed(number, networks.into_iter().map(parse).collect::<Result<_>>()?);
        Ok(())
    }

    fn remove_peer(&self, number: u32) {
        self.0.remove_peer(number);
    }

    fn rejected(&self) -> Vec<(&'static str, i32, u64)> {
        let text = |(reason, count)| match reason {
            Rejected::Forged => ("forged", 0, count),
            Rejected::Source => ("source", 0, count),
            Rejected::NotSent(error) => ("not sent", error, count),
        };
        self.0.rejected().into_iter().map(text).collect()
    }

    /// Pass packets until a bell is readable; an errno of the adapter, or 0.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        py: Python<'_>,
        adapter: &Bound<'_, PyAny>,
        sockets: &Bound<'_, PyAny>,
        counts: (Bound<'_, PyAny>, Bound<'_, PyAny>),
        bells: &Bound<'_, PyAny>,
        headed: bool,
        udp: bool,
        above: &Bound<'_, PyAny>,
    ) -> Result<i32> {
        let end = End::of(adapter)?;
        let (sockets, bells) = (duplicates(sockets)?, duplicates(bells)?);
        let (received, sent) = counts;
        let (received, sent) = (Counters::of(&received)?, Counters::of(&sent)?);
        let above = Above(above.clone().unbind());
        let router = Arc::clone(&self.0);
        let ended = py.detach(|| {
            let (sources, sockets) = (borrowed(&end.sources), borrowed(&sockets));
            let outside = tunnel::Outside { sockets: &sockets, received: received.get(), sent: sent.get() };
            tunnel::run(&end.lend(&sources), &outside, &router, &above, &borrowed(&bells), headed, udp)
        })?;
        if !ended.coalescing {
            adapter.setattr(intern!(py, "coalescing"), false)?;
        }
        match ended.raised {
            Some(error) => Err(Error::Python(error)),
            None => Ok(ended.error.map_or(0, rustix::io::Errno::raw_os_error)),
        }
    }
}

/// A Python object that does what the loop does not.
struct Above(Py<PyAny>);

impl tunnel::Above for Above {
    type Error = PyErr;

    fn send(&self, records: &[&[u8]]) -> PyResult<()> {
        Python::attach(|py| {
            let records = PyList::new(py, records.iter().map(|record| PyByteArray::new(py, record)))?;
            self.0.bind(py).call_method1(intern!(py, "send"), (records,)).map(drop)
        })
    }

    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> PyResult<Vec<Vec<u8>>> {
        Python::attach(|py| {
            let local = arrival.local.map(|local| packed(py, local));
            let arguments = (PyByteArray::new(py, datagrams), arrival.size, place(py, arrival.source), local);
            let packets = self.0.bind(py).call_method1(intern!(py, "receive"), arguments)?;
            let copy = |packet: Bound<'_, PyAny>| Ok(Buffers::of(&packet)?.slice(0).to_vec());
            packets
                .try_iter()?
                .map(|packet| packet.and_then(|packet| copy(packet).map_err(|error: Error| error.into())))
                .collect()
        })
    }

    fn attend(&self, peer: u32, sending: bool) -> PyResult<f64> {
        Python::attach(|py| self.0.bind(py).call_method1(intern!(py, "attend"), (peer, sending))?.extract())
    }
}

fn key((transport, until, attend_at): Keypair<'_>) -> Key {
    Key { transport: Arc::clone(&transport.get().0), until, attend_at }
}

fn address(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        Err(_) => Err(PyValueError::new_err("an address has 4 or 16 bytes").into()),
    }
}

fn socket_address((host, port, scope): &Place<'_>) -> Result<SocketAddr> {
    Ok(match address(host.as_bytes())? {
        IpAddr::V4(address) => SocketAddrV4::new(address, *port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, *port, 0, *scope).into(),
    })
}

fn place(py: Python<'_>, address: SocketAddr) -> Place<'_> {
    let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
    (packed(py, address.ip()), address.port(), scope)
}
