"""A program with a WireGuard device like that of threepipe-wg, whose keys expire as fast as a test wants.

Arguments: the seconds of `Timing` as JSON, a file for the names of its events, one per line, and the interface's
name. At the end it prints a line of JSON: the core that it used, and the packets that it dropped.
"""

import json
import sys
from contextlib import ExitStack

from threepipe import Adapter, AdapterGone
from threepipe.core import fast
from threepipe.net.signals import interrupt_once
from threepipe.piping import pipe
from threepipe.wireguard import Device, Event, Timing
from threepipe.wireguard.uapi_socket import UapiServer, listen

MTU = 1420


def main(seconds: str, events: str, name: str) -> None:
    with ExitStack() as handlers, ExitStack() as stack:
        told = stack.enter_context(open(events, "a", buffering=1))

        def tell(event: Event) -> None:
            told.write(f"{event.name}\n")

        inside = stack.enter_context(Adapter.create(name, mtu=MTU, offload=fast.NATIVE)).start_session()
        device = Device(mtu=MTU, timing=Timing(**json.loads(seconds)), on_event=tell)
        stack.enter_context(device)
        stack.enter_context(UapiServer(listen(name), device, device.close))
        handlers.enter_context(interrupt_once())
        try:
            pipe(inside, device.session)
        except (KeyboardInterrupt, AdapterGone):
            pass
        print(json.dumps({"native": fast.NATIVE, "rejected": device.rejected}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
