"""MetricsServer: serves metrics to Prometheus by HTTP, in its text format, at an address of this machine.

A server loads the library prometheus_client, which writes the format. Knows no metric.
"""

import logging
import selectors
import socket
import threading
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from threepipe.errors import InvalidSetting
from threepipe.net.accept import Acceptor
from threepipe.net.connect import HostPort, bind, parse_host_port
from threepipe.net.doorbell import Doorbell
from threepipe.net.forks import call_in_child

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["MetricsServer"]

_MAX_CLIENTS = 16
_TIMEOUT = 10.0  # Seconds that a client may be silent.

log = logging.getLogger("threepipe")


class MetricsServer:
    """Serves the metrics of collectors from its own thread, until `close` or the end of a `with` block."""

    def __init__(self, address: str | HostPort, collectors: "Iterable[Collector]") -> None:
        """Listen at `HOST:PORT`, or at a port of the loopback address; port 0 has the system choose one.

        Raises `InvalidSetting`, also if prometheus_client is not installed, and `EndpointError` if the address is in
        use or not this machine's.
        """
        local = parse_host_port(address, listening=True) if isinstance(address, str) else address
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ModuleNotFoundError:
            text = 'metrics need prometheus_client; run: pip install "threepipe[metrics]"'
            raise InvalidSetting(text) from None
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        listening = bind(local, socket.SOCK_STREAM)
        self.address = HostPort(*listening.getsockname()[:2])
        """The address at which it listens."""
        self._server = _Server(listening, self.address)
        self._server.set_app(make_wsgi_app(registry))
        self._bell = Doorbell()
        self._closed = False
        self._closing = threading.Lock()
        call_in_child(self, MetricsServer._abandon)
        self._thread = threading.Thread(target=self._run, name="threepipe-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._closed:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._server in ready and not self._closed:
                    self._server.handle_request()

    def close(self) -> None:
        """Stop listening, and free the address. May be called again."""
        with self._closing:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._bell.ring(for_ever=True)
        self._thread.join()
        self._server.server_close()
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _abandon(self) -> None:
        """Close the copy of the socket in a forked child; the parent's server goes on."""
        self._closing, self._closed = threading.Lock(), True
        self._server.socket.close()


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("metrics: " + format, *args)


class _Server(ThreadingMixIn, WSGIServer):
    """An HTTP server on a socket that listens, with a thread for each client."""

    daemon_threads = True
    block_on_close = False
    timeout = 0  # `handle_request` is called when there is a client.

    def __init__(self, listening: socket.socket, address: HostPort) -> None:
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        listening.setblocking(False)
        self.server_name, self.server_port = address
        self.setup_environ()
        self._acceptor = Acceptor(listening)
        self._slots = threading.BoundedSemaphore(_MAX_CLIENTS)

    def get_request(self) -> tuple[socket.socket, Any]:
        return self._acceptor.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: the client %s has left", client_address, exc_info=True)

    def server_close(self) -> None:
        super().server_close()
        self._acceptor.close()
