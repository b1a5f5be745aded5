//! The router of a `WireGuard` device. See `threepipe.wireguard.routing`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::wireguard::router::{self, Keypair, PeerSettings, Rejected};

use crate::address::{PyEndpoint, from_bytes, from_endpoint};
use crate::buffer::Counters;
use crate::error::Result;
use crate::handler::Handler;
use crate::transport::{Traffic, Transport};
use threepipe_core::pump as core;

/// A transport, the time when it expires, and the time of use from which the handler is told.
type PyKeypair<'py> = (Bound<'py, Transport>, f64, f64);

#[pyclass(frozen)]
#[derive(Default)]
pub struct Router(pub Arc<router::Router>);

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
        let end = crate::pump::End::of(adapter, headed, udp)?;
        let (sockets, bells) = (crate::pump::duplicates(sockets)?, crate::pump::duplicates(bells)?);
        let (received, sent) = counts;
        let (received, sent) = (Counters::<3>::of(&received)?, Counters::<4>::of(&sent)?);
        let (handler, unused) = (Handler(above.clone().unbind()), std::sync::atomic::AtomicU64::new(0));
        let ended = py.detach(|| {
            let (sources, sockets) = (crate::pump::borrowed(&end.sources), crate::pump::borrowed(&sockets));
            let peers = core::PeersEnd {
                router: &self.0,
                sockets: &sockets,
                handler: &handler,
                received: core::Counters::three(received.get(), &unused),
                sent: sent.get().into(),
            };
            core::pump(&end.lend(&sources), &core::End::Peers(peers), &crate::pump::borrowed(&bells))
        });
        end.tell(adapter)?;
        match ended? {
            core::Ended::Bell => Ok(0),
            core::Ended::Failed(error, _) => Ok(error.raw_os_error()),
            core::Ended::Raised(raised) => Err(crate::pump::raised_by(raised)),
        }
    }
}

fn keypair((transport, expires_at, attend_at): PyKeypair<'_>) -> Keypair {
    Keypair::new(Arc::clone(&transport.get().0), expires_at, attend_at)
}
