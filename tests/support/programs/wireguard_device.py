"""A program with a WireGuard device like that of threepipe-wg, whose keys expire as fast as a test wants.

Arguments: the seconds of `Timing` as JSON, a file for the names of its events, one per line, and the interface's
name. At the end it prints a line of JSON: the core that it used, the packets that it dropped, and the exit statuses
of its children. With FORKS=1 in the environment it forks a child at each event, which uses and closes its copy of the
device. It takes a persistent adapter of that name.
"""

import json
import os
import sys
import warnings
from contextlib import ExitStack

from threepipe import Adapter, AdapterGone, NameTaken, SessionClosed
from threepipe.core import fast
from threepipe.piping import pipe
from threepipe.wireguard import Device, Event, Timing
from threepipe.wireguard.quick.ending import Ending
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import listen

MTU = 1420


def main(seconds: str, events: str, name: str) -> None:
    children: list[int] = []
    with ExitStack() as handlers, ExitStack() as stack:
        told = stack.enter_context(open(events, "a", buffering=1))

        def tell(event: Event) -> None:
            told.write(f"{event.name}\n")
            if os.environ.get("FORKS"):
                children.append(status_of_child())

        def status_of_child() -> int:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads.
                child = os.fork()
            if child:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            status = 1
            try:
                device.session.send([b"\x45" + bytes(19)])
            except SessionClosed:
                device.close()
                inside.close()
                status = len(device.status().peers)
            finally:
                os._exit(status)

        try:
            adapter = Adapter.create(name, mtu=MTU, offload=fast.NATIVE)
        except NameTaken:
            adapter = Adapter.open(name, offload=fast.NATIVE)
        inside = stack.enter_context(adapter).start_session()
        device = Device(mtu=MTU, timing=Timing(**json.loads(seconds)), on_event=tell)
        stack.enter_context(device)
        stack.enter_context(UapiServer(listen(name), device, device.close))
        ending = handlers.enter_context(Ending())
        try:
            with ending.interrupting():
                pipe(inside, device.session)
        except (KeyboardInterrupt, AdapterGone):
            pass
        print(json.dumps({"native": fast.NATIVE, "rejected": device.rejected, "children": children}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
