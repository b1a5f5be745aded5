//! Addresses, as Python passes them: bytes, and tuples of bytes, port and scope.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::Result;
use crate::transport::to_bytes;

/// An address of 4 or 16 bytes, a port, and the scope of a link-local address.
pub type PyEndpoint<'py> = (Bound<'py, PyBytes>, u16, u32);

/// Return the address of 4 or 16 bytes.
pub fn from_bytes(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        Err(_) => Err(PyValueError::new_err("invalid address: expected 4 or 16 bytes").into()),
    }
}

/// Return the socket address of an endpoint.
pub fn from_endpoint((host, port, scope): &PyEndpoint<'_>) -> Result<SocketAddr> {
    Ok(match from_bytes(host.as_bytes())? {
        IpAddr::V4(address) => SocketAddrV4::new(address, *port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, *port, 0, *scope).into(),
    })
}

/// Return the endpoint of a socket address.
pub fn to_endpoint(py: Python<'_>, address: SocketAddr) -> PyEndpoint<'_> {
    let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
    (to_bytes(py, address.ip()), address.port(), scope)
}
