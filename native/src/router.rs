//! The router of a `WireGuard` device. See `threepipe.wireguard.routing`.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::wireguard::next_hops::Flow;
use threepipe_core::wireguard::router::{self, Keypair, PeerSettings, Rejected};

use crate::address::{PyEndpoint, from_bytes, from_endpoint};
use crate::error::Result;
use crate::transport::{Traffic, Transport};

/// A transport, the time when it expires, and the time of use from which the handler is told.
type PyKeypair<'py> = (Bound<'py, Transport>, f64, f64);

/// The addresses of a flow, 4 bytes or twice 16, and the number of a peer.
type PyNextHop<'py> = (Bound<'py, PyBytes>, u32);
/// Networks: an address and a prefix length each.
type PyNetworks<'py> = Vec<(Bound<'py, PyBytes>, u8)>;

#[pyclass(frozen)]
pub struct Router(pub router::Router);

#[pymethods]
impl Router {
    #[new]
    fn new(next_hops: bool) -> Self {
        Self(if next_hops { router::Router::by_next_hops() } else { router::Router::default() })
    }

    fn set_mtu(&self, mtu: usize) {
        self.0.set_mtu(mtu);
    }

    fn set_peer(
        &self,
        number: u32,
        traffic: &Bound<'_, Traffic>,
        endpoint: Option<PyEndpoint<'_>>,
        local: Option<Bound<'_, PyBytes>>,
        sending: Option<PyKeypair<'_>>,
        receiving: Vec<PyKeypair<'_>>,
    ) -> Result<()> {
        let settings = PeerSettings {
            traffic: Arc::clone(&traffic.get().0),
            endpoint: endpoint.map(|endpoint| from_endpoint(&endpoint)).transpose()?,
            local: local.map(|local| from_bytes(local.as_bytes())).transpose()?,
            sending: sending.map(keypair),
            receiving: receiving.into_iter().map(keypair).collect(),
        };
        self.0.set_peer(number, settings);
        Ok(())
    }

    fn set_allowed(&self, number: u32, networks: PyNetworks<'_>, link_local: Option<Bound<'_, PyBytes>>) -> Result<()> {
        let link_local = link_local.map(|address| ipv6(address.as_bytes())).transpose()?;
        self.0.set_allowed(number, parsed(networks)?, link_local);
        Ok(())
    }

    fn set_next_hops(&self, changed: PyNetworks<'_>, learned: Vec<PyNextHop<'_>>) -> Result<()> {
        let parse = |(bytes, number): PyNextHop<'_>| Ok((flow(bytes.as_bytes())?, number));
        self.0.set_next_hops(parsed(changed)?, learned.into_iter().map(parse).collect::<Result<_>>()?);
        Ok(())
    }

    fn remove_peer(&self, number: u32) {
        self.0.remove_peer(number);
    }

    fn rejected(&self) -> Vec<(&'static str, i32, u64)> {
        let text = |(reason, count)| match reason {
            Rejected::Forged => ("forged", 0, count),
            Rejected::Source => ("source", 0, count),
            Rejected::Congested => ("congested", 0, count),
            Rejected::NotSent(error) => ("not sent", error, count),
        };
        self.0.rejected().into_iter().map(text).collect()
    }
}

fn parsed(networks: PyNetworks<'_>) -> Result<Vec<(IpAddr, u8)>> {
    networks.into_iter().map(|(bytes, length)| Ok((from_bytes(bytes.as_bytes())?, length))).collect()
}

fn ipv6(bytes: &[u8]) -> Result<Ipv6Addr> {
    match from_bytes(bytes)? {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => Err(PyValueError::new_err("invalid address: expected 16 bytes").into()),
    }
}

fn flow(bytes: &[u8]) -> Result<Flow> {
    match bytes.split_at_checked(16) {
        Some((source, destination)) => {
            Ok(Flow { source: Some(ipv6(source)?), destination: IpAddr::V6(ipv6(destination)?) })
        }
        None => Ok(Flow { source: None, destination: from_bytes(bytes)? }),
    }
}

fn keypair((transport, expires_at, attend_at): PyKeypair<'_>) -> Keypair {
    Keypair::new(Arc::clone(&transport.get().0), expires_at, attend_at)
}
