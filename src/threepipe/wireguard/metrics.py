"""DeviceMetrics: the counts of a device and its peers, for Prometheus.

The names and labels of the peers' metrics are those of prometheus_wireguard_exporter 3.6, so its dashboards and alerts
fit. The others are threepipe's own. `collect` loads the library prometheus_client.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from threepipe.errors import SessionClosed
from threepipe.net.connect import HostPort
from threepipe.net.exposition import MetricsServer
from threepipe.session import close_with
from threepipe.wireguard.device import Device
from threepipe.wireguard.values import key_to_text

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["DeviceMetrics", "serve_metrics"]

_DEVICE = ("interface",)
_PEER = (*_DEVICE, "public_key", "allowed_ips")


class DeviceMetrics:
    """A collector of one device's metrics, for a registry of prometheus_client."""

    def __init__(self, device: Device, interface: str) -> None:
        """`interface` is the label of that name."""
        self._device, self._interface = device, interface

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics of this moment."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        own = (self._interface,)
        status, counts = self._device.status(), self._device.session.statistics
        peers = [
            ((*own, key_to_text(peer.public_key), ",".join(map(str, peer.allowed_ips))), peer) for peer in status.peers
        ]
        for kind, name, text, names, samples in (
            (Counter, "sent_bytes", "Bytes sent to the peer", _PEER, [(key, peer.tx_bytes) for key, peer in peers]),
            (
                Counter, "received_bytes", "Bytes received from the peer", _PEER,
                [(key, peer.rx_bytes) for key, peer in peers],
            ),
            (
                Gauge, "latest_handshake_seconds",
                "Time of the latest handshake with the peer, in seconds since 1970; 0 if there was none", _PEER,
                [(key, peer.last_handshake) for key, peer in peers],
            ),
            (Gauge, "peers", "Peers of the device", _DEVICE, [(own, len(peers))]),
            (
                Gauge, "sessions", "Peers that the device can send data to without a new handshake", _DEVICE,
                [(own, sum(peer.has_session for _, peer in peers))],
            ),
            (Counter, "received_packets", "Packets from all peers", _DEVICE, [(own, counts.received_packets)]),
            (Counter, "sent_packets", "Packets for all peers", _DEVICE, [(own, counts.sent_packets)]),
            (
                Counter, "rejected", "Datagrams and packets dropped, by reason", (*_DEVICE, "reason"),
                [((*own, reason), count) for reason, count in sorted(self._device.rejected.items())],
            ),
        ):  # fmt: skip
            family = kind(f"wireguard_{name}", text, labels=names)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


def serve_metrics(device: Device, interface: str, address: str | HostPort) -> MetricsServer:
    """Serve the metrics of `device` to Prometheus, until the device or the server that this returns is closed.

    `address` is `HOST:PORT`, or a port alone at the loopback address; port 0 has the system choose one. `interface` is
    the label of that name. Raises `EndpointError` if the address is in use or not this machine's, and `InvalidSetting`,
    also if prometheus_client is not installed. Raises `SessionClosed` if the device is closed.
    """
    server = MetricsServer(address, [DeviceMetrics(device, interface)])
    close_with(device.session, server)
    if device.session.closed:
        server.close()
        raise SessionClosed("the device is closed; make a new one")
    return server
