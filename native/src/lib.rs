//! The native core of threepipe for Python: thin functions over `threepipe_core`.
//!
//! What they do is told in `threepipe_native.pyi`, and in full in the Python modules they stand in for. Here
//! is only what Python needs: its buffers are borrowed, results become views, and errors exceptions.

mod buffer;
#[cfg(unix)]
mod descriptor;
mod error;
#[cfg(unix)]
mod file;
mod offload;
#[cfg(target_os = "linux")]
mod router;
mod sealing;
mod wintun;

/// Not tied to the GIL: what state there is has locks of its own, and what is borrowed is held by the buffer protocol.
#[pyo3::pymodule(gil_used = false)]
mod threepipe_native {
    #[cfg(unix)]
    #[pymodule_export]
    use crate::descriptor::{pump, receive, send};
    #[pymodule_export]
    use crate::offload::{coalesce, internet_checksum, measure, split};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::router::Router;
    #[pymodule_export]
    use crate::sealing::{Traffic, Transport};
    #[pymodule_export]
    use crate::wintun::{give, take};
}
