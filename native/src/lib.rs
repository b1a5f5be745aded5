//! The native core of threepipe for Python: a thin shell over `threepipe_core`.
//!
//! `src/threepipe/_native.pyi` and the Python twins document the functions. This crate only borrows Python's buffers,
//! makes views of results, and raises exceptions for errors.

#[cfg(target_os = "linux")]
mod address;
mod buffer;
#[cfg(target_os = "linux")]
mod datagrams;
#[cfg(unix)]
mod descriptor;
mod error;
#[cfg(unix)]
mod file;
mod gatherer;
#[cfg(target_os = "linux")]
mod handler;
mod packet;
#[cfg(unix)]
mod pump;
#[cfg(target_os = "linux")]
mod records;
mod rings;
#[cfg(target_os = "linux")]
mod router;
#[cfg(unix)]
mod sender;
mod spares;
mod transport;

/// The module does not need the GIL: its state has locks of its own, and the buffer protocol holds borrowed memory.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    /// The version of threepipe that this core was built with.
    #[pymodule_export]
    const VERSION: &str = env!("THREEPIPE_VERSION");
    #[cfg(unix)]
    #[pymodule_export]
    const KINDS_OF_ENDS: &str = if cfg!(target_os = "linux") { "tun peers datagrams records" } else { "tun" };
    #[cfg(unix)]
    #[pymodule_export]
    use crate::descriptor::{receive, receive_packets, send, send_coalesced};
    #[pymodule_export]
    use crate::gatherer::Gatherer;
    #[pymodule_export]
    use crate::packet::{coalesce, combine_ecn, extract, flow_fields, internet_checksum, measure, split};
    #[cfg(unix)]
    #[pymodule_export]
    use crate::pump::pump;
    #[pymodule_export]
    use crate::rings::{ring_receive, ring_send};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::router::Router;
    #[cfg(unix)]
    #[pymodule_export]
    use crate::sender::PacketSender;
    #[pymodule_export]
    use crate::transport::{Traffic, Transport};
}
