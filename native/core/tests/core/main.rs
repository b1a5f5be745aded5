//! Tests of the public interface, in one program, so that they share their helpers.

#[cfg(unix)]
mod adapters;
mod allowed_ips;
#[cfg(target_os = "linux")]
mod endpoints;
mod packets;
#[cfg(target_os = "linux")]
mod peers;
mod router;
mod superpackets;
mod tunnels;
#[cfg(unix)]
mod waiting;
