"""The files of both ends of a `tls` pipe, made by a private authority that signs these two certificates and no more.

Its key is never written, so nobody can issue a third certificate. Needs `cryptography`.
"""

import ipaddress
import re
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import HostPort
from threepipe.platforms.files import write_new

__all__ = ["make_ends"]

_LIFETIME = timedelta(days=3650)
_TOLERANCE = timedelta(days=1)  # For an end whose clock is behind.
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_CERTIFICATE, _KEY, _AUTHORITY = "cert.pem", "key.pem", "ca.pem"
_LISTENER, _CLIENT = "listener", "client"


def make_ends(listener: HostPort, folder: Path) -> tuple[str, str]:
    """Make the folders `listener` and `client` with the files of the two ends, and return the addresses to use there.

    The addresses name the files relative to `folder`, from where they are used. Each end accepts the other one alone.
    Raises `InvalidSetting` for a name that no certificate can have, and `EndpointError`, also if a folder exists; then
    nothing is left.
    """
    name = _general_name(listener.host)
    authority = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "threepipe: one pipe")])
    root = _certificate(authority, authority, subject, subject, [x509.BasicConstraints(ca=True, path_length=0)])
    files: dict[Path, bytes] = {}
    for end, san, usage in (
        (_LISTENER, name, ExtendedKeyUsageOID.SERVER_AUTH),
        (_CLIENT, x509.DNSName(_CLIENT), ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=False, path_length=None),
            x509.SubjectAlternativeName([san]),
            x509.ExtendedKeyUsage([usage]),
        ]
        holder = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, end)])
        files[folder / end / _KEY] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files[folder / end / _CERTIFICATE] = _certificate(key, authority, holder, subject, extensions)
        files[folder / end / _AUTHORITY] = root
    with ExitStack() as undo:
        for end in (_LISTENER, _CLIENT):
            _make_folder(folder / end)
            undo.callback((folder / end).rmdir)
        write_new(files)
        undo.pop_all()
    everywhere = HostPort("::" if ":" in listener.host else "0.0.0.0", listener.port)
    return f"tls-listen:{everywhere}{_options(_LISTENER)}", f"tls:{listener}{_options(_CLIENT)}"


def _options(end: str) -> str:
    return f",cert={end}/{_CERTIFICATE},key={end}/{_KEY},ca={end}/{_AUTHORITY}"


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host):
        raise InvalidSetting(f"{host!r} cannot be in a certificate: give a host name of letters, digits, - and .")
    return x509.DNSName(host)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError as error:
        text = f"{path} exists; it is never overwritten: run this in another folder, or move it"
        raise EndpointError(error.errno, text) from None
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror}") from None


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    extensions: list[x509.ExtensionType],
) -> bytes:
    """Return a certificate as PEM, with what Python 3.13 and newer ask of one (VERIFY_X509_STRICT, RFC 5280)."""
    now = datetime.now(UTC)
    signs = key is authority
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now - _TOLERANCE, now + _LIFETIME
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    usage = x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
    )
    return builder.sign(authority, SHA256()).public_bytes(Encoding.PEM)
