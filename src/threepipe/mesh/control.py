"""The socket by which commands ask a running agent: threepipe/mesh/INTERFACE.sock in the folder for such sockets.

A request is a line, `status` or `leave`, and its answer a line of JSON. The connection ends with the answer. The
agent answers `leave` once it has told the others; the client then waits until the interface is gone.
"""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from threepipe import platforms
from threepipe.errors import EndpointError, ThreepipeError, text_of
from threepipe.mesh.agent import Agent
from threepipe.net.connect import endpoint_errors, listen_unix, reach_unix
from threepipe.wireguard.settings import check_device_name

__all__ = ["ask", "interfaces", "serving"]

_TIMEOUT = 30.0  # Seconds for an answer.


def _folder() -> Path:
    folder = platforms.runtime_folder()
    if folder is None:
        raise EndpointError(errno.ENOSYS, "this system has no folder for the sockets of running agents")
    return folder / "mesh"


def interfaces() -> list[str]:
    """Return the interfaces whose agents have a socket, also those of killed agents."""
    folder = platforms.runtime_folder()
    return sorted(path.stem for path in (folder / "mesh").glob("*.sock")) if folder else []


def ask(interface: str, request: str) -> Any:
    """Return the answer of the agent of an interface. Raises `EndpointError`, also if none runs."""
    path = _folder() / f"{check_device_name(interface)}.sock"
    try:
        with reach_unix(str(path)) as client:
            client.settimeout(_TIMEOUT)
            client.sendall(f"{request}\n".encode())
            with client.makefile("rb") as answers:
                answer = json.loads(answers.readline() or b'{"error": "the agent has ended"}')
                answers.read()  # After `leave` the end comes once everything is undone.
    except OSError as error:
        advice = "run this as root, or as the user who runs the agent"
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            advice = f"no agent runs for {interface}; start one with: threepipe mesh join"
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}; {advice}") from None
    if "error" in answer:
        raise EndpointError(None, f"{interface}: {answer['error']}")
    return answer


@asynccontextmanager
async def serving(agent: Agent, interface: str, leave: Callable[[], None], waiting: ExitStack) -> AsyncIterator[None]:
    """Answer requests about the agent of an interface while the block runs. Raises `EndpointError`.

    `leave` is called once the others know that this node leaves. The connections of clients that wait for the end are
    moved to `waiting`, which closes them.
    """

    async def answer(request: str) -> Any:
        try:
            if request == "status":
                return {"interface": interface, **await agent.status()}
            if request == "leave":
                return {"warning": await agent.leave()}
        except (ThreepipeError, OSError) as error:
            return {"error": text_of(error)}
        return {"error": f"unknown request {request!r}"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):  # The client is gone, or its line has no end.
            request = (await reader.readline()).decode(errors="replace").strip()
            writer.write(json.dumps(await answer(request)).encode() + b"\n")
            await writer.drain()
            if request == "leave":
                waiting.callback(os.close, os.dup(writer.get_extra_info("socket").fileno()))
                leave()
        writer.close()

    folder = _folder()
    with endpoint_errors(f"the socket for commands in {folder}", {}):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening, remove = listen_unix(str(folder / f"{interface}.sock"))
    server = await asyncio.start_server(serve, sock=listening)
    try:
        yield
    finally:
        remove()
        server.close()
