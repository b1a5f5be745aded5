"""The settings of a NATS bus, and its connections to a fake server. tests/soak uses a real one."""

import asyncio
import sys
from pathlib import Path

import nats
import pytest
import trustme
from nats.js.errors import APIError, NoStreamResponseError

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.mesh import NatsBus, Secrets

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
"""The NKey of the example in NATS' documentation."""


@pytest.mark.parametrize("url", ["nats://bus.example.org:4222", "tls://[::1]:4222", "wss://bus.example.org"])
def test_a_bus_is_reached_by_its_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    reached: list[str] = []

    class Reached(Exception):
        pass

    async def connect(urls: list[str], **_: object) -> None:
        reached.extend(urls)
        raise Reached

    async def run() -> None:
        await NatsBus([url]).run(Told())

    monkeypatch.setattr(nats, "connect", connect)
    with pytest.raises(Reached):
        asyncio.run(run())
    assert reached == [url]


@pytest.mark.parametrize("url", ["bus.example.org:4222", "http://bus.example.org", "nats://", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="a URL such as nats://"):
        NatsBus([url])


def test_a_secret_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSetting, match="by --credentials") as refused:
        NatsBus(["nats://me:geheim@bus.example.org"])
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3cret\n", {"token": "s3cret"}),
        ("me:geheim:2\n", {"user": "me", "password": "geheim:2"}),
        (f"{SEED}\n", {"nkeys_seed": "PATH"}),
        ("-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n", {"user_credentials": "PATH"}),
    ],
    ids=["token", "password", "nkey", "creds"],
)
def test_the_kind_of_credentials_is_seen_from_the_file(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    assert Secrets(path).options() == {key: str(path) if value == "PATH" else value for key, value in expected.items()}


def test_files_for_tls_make_a_context(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("node.example.org")
    ca, own, key = (tmp_path / name for name in ("ca", "own", "key"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(own)
    certificate.private_key_pem.write_to_path(key)
    context = Secrets(ca=ca, certificate=own, key=key).options()["tls"]
    assert len(context.get_ca_certs()) == 1
    assert Secrets().options() == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="nothing-here"):
        Secrets(tmp_path / "nothing-here").options()


def test_without_nats_py_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(InvalidSetting, match=r'pip install "threepipe\[mesh\]"'):
        asyncio.run(NatsBus(["nats://bus.example.org"]).run(None))  # type: ignore[arg-type]


def test_nothing_is_put_while_the_bus_is_away() -> None:
    with pytest.raises(EndpointError, match="the bus is away"):
        asyncio.run(NatsBus(["nats://bus.example.org"]).put("gw", b""))


class FakeServer:
    """A client of NATS, its stream, bucket and watcher in one: `answer` says what becomes of a put."""

    class connected_url:  # noqa: N801
        netloc = "bus.example.org"

    def __init__(self, answer: Exception | None) -> None:
        self.answer = answer
        self.is_connected = True
        self.rounds = asyncio.Queue[None]()
        """An item for each time that somebody has begun to wait for the next record."""

    def jetstream(self, timeout: float) -> "FakeServer":
        return self

    async def key_value(self, bucket: str) -> "FakeServer":
        return self

    async def watchall(self) -> "FakeServer":
        return self

    async def __anext__(self) -> None:
        self.rounds.put_nowait(None)
        await asyncio.Event().wait()

    async def put(self, name: str, data: bytes) -> None:
        if self.answer is not None:
            raise self.answer

    async def close(self) -> None:
        self.is_connected = False


class Told:
    """A listener that remembers whether the bus is there."""

    def __init__(self) -> None:
        self.changed = asyncio.Queue[str]()

    def heard(self, name: str, data: bytes) -> None: ...

    def online(self) -> None:
        self.changed.put_nowait("online")

    def away(self) -> None:
        self.changed.put_nowait("away")


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [(TimeoutError(), False), (NoStreamResponseError(), False), (None, False), (APIError(code=503), True)],
    ids=["no answer", "the bucket was deleted", "the record does not come back", "refused"],
)
def test_a_connection_by_which_no_record_comes_back_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | None, is_kept: bool
) -> None:
    """It may be one from an address that the node has lost, of which TCP says nothing for minutes."""
    monkeypatch.setattr("threepipe.mesh.bus._ROUND", 0.01)
    client = FakeServer(answer)

    async def connect(*_: object, **__: object) -> FakeServer:
        return client

    async def check() -> None:
        bus, told = NatsBus(["nats://bus.example.org"]), Told()
        running = asyncio.ensure_future(bus.run(told))
        assert await told.changed.get() == "online"
        if answer is None:
            await bus.put("gw", b"record")
        else:
            with pytest.raises(EndpointError, match="has not taken the record"):
                await bus.put("gw", b"record")
        if is_kept:
            async with asyncio.timeout(10):
                for _ in range(20):  # More than it lets pass while it expects a record.
                    await client.rounds.get()
            assert told.changed.empty()
        else:
            async with asyncio.timeout(10):
                assert await told.changed.get() == "away"
        running.cancel()
        await asyncio.wait([running])
        assert not client.is_connected

    monkeypatch.setattr(nats, "connect", connect)
    asyncio.run(check())
