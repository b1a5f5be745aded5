//! The router of a `WireGuard` device. See `threepipe.wireguard.routing`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::wireguard::router::{self, Keypair, PeerSettings, Rejected};

use crate::address::{PyEndpoint, from_bytes, from_endpoint};
use crate::error::Result;
use crate::transport::{Traffic, Transport};

/// A transport, the time when it expires, and the time of use from which the handler is told.
type PyKeypair<'py> = (Bound<'py, Transport>, f64, f64);

#[pyclass(frozen)]
#[derive(Default)]
pub struct Router(pub router::Router);

#[pymethods]
impl Router {
    #[new]
    fn new() -> Self {
        Self::default()
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

    fn set_allowed(&self, number: u32, networks: Vec<(Bound<'_, PyBytes>, u8)>) -> Result<()> {
        let parse = |(bytes, length): (Bound<'_, PyBytes>, u8)| Ok((from_bytes(bytes.as_bytes())?, length));
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
            Rejected::Congested => ("congested", 0, count),
            Rejected::NotSent(error) => ("not sent", error, count),
        };
        self.0.rejected().into_iter().map(text).collect()
    }
}

fn keypair((transport, expires_at, attend_at): PyKeypair<'_>) -> Keypair {
    Keypair::new(Arc::clone(&transport.get().0), expires_at, attend_at)
}
