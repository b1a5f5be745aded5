"""Credentials: the files by which a TLS end proves its identity, and the rules for the other end's.

OpenSSL verifies the other end's chain, the revocation lists and, for a caller, the listener's name (RFC 9525). This
module adds names of callers and fingerprints, which OpenSSL does not check for servers in Python. Knows no sockets and
no packets.
"""

import errno
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["CertificateRefused", "Credentials", "ListenerContext"]


class CertificateRefused(OSError):
    """The other end's certificate is valid for its authority, or not even that, and is not accepted here."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)
        self.reason = reason


class Credentials(NamedTuple):
    """Paths of PEM files, and requirements for the other end's certificate besides the signature of its authority."""

    cert: str
    """The certificate of this end, with its chain."""
    key: str
    ca: str
    """The authority of the other end."""
    crl: str | None = None
    """Revocation lists, one for each authority in a chain of the other end (RFC 5280, section 6.3)."""
    names: Sequence[str] = ()
    """One of these must be in the other end's subjectAltName; none: any."""
    fingerprints: Sequence[str] = ()
    """One of these must be the SHA-256 of its certificate (DER), in small hexadecimal digits; none: any."""

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return the context of one side. Raise `EndpointError` if the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            text = f"{self.cert}, {self.key} and {self.ca}: {error.reason or error}; give PEM files of a matching pair"
            raise EndpointError(errno.EINVAL, text) from None
        except OSError as error:
            text = f"one of {self.cert}, {self.key} and {self.ca} cannot be read: {error.strerror}"
            raise EndpointError(error.errno, text) from None
        if self.crl is not None:
            _load_lists(context, self.crl)
        return context

    def check(self, secured: ssl.SSLObject) -> None:
        """Check the other end's certificate after the handshake. Raises `CertificateRefused`."""
        certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None  # OpenSSL requires one.
        fingerprint = hashlib.sha256(certificate).hexdigest()
        if self.fingerprints and fingerprint not in self.fingerprints:
            raise CertificateRefused(
                f"its certificate has the fingerprint {fingerprint}, which is not one of those given"
            )
        if self.names:
            fields: Any = secured.getpeercert()
            # All kinds of names are alike here: the authority confirms each of them.
            found = [str(value) for _, value in fields.get("subjectAltName", ())]
            if not {*map(_comparable, found)} & {*map(_comparable, self.names)}:
                raise CertificateRefused(
                    f"its certificate is for {', '.join(found) or 'no name'} (fingerprint {fingerprint})"
                )

    def stamp(self) -> tuple[object, ...]:
        """Return a value that differs once a file was replaced or written."""
        return tuple([_file_stamp(path) for path in (self.cert, self.key, self.ca, self.crl) if path is not None])


class ListenerContext:
    """The context of a listener, made anew for the next client when its files have changed."""

    def __init__(self, credentials: Credentials, log: RateLimitedLog) -> None:
        """Read the files. Raises `EndpointError` if they cannot be used."""
        self._credentials = credentials
        self._log = log
        self._stamp = credentials.stamp()
        self._context = credentials.context(server=True)

    def get(self) -> ssl.SSLContext:
        """Return the context of the files as they are now or, if these cannot be used, of those before them."""
        stamp = self._credentials.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._credentials.context(server=True)
            except (EndpointError, InvalidSetting) as error:
                reason = error.strerror if isinstance(error, EndpointError) else error
                self._log.warn(
                    "credentials", f"new files cannot be used, and those before them stay in force: {reason}"
                )
        return self._context


def _load_lists(context: ssl.SSLContext, path: str) -> None:
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise EndpointError(errno.EINVAL, f"{path}: {error.reason or error}; give revocation lists in PEM") from None
    except OSError as error:
        raise EndpointError(error.errno, f"{path} cannot be read: {error.strerror}") from None
    after = context.cert_store_stats()
    if after["crl"] == before["crl"] or after["x509"] != before["x509"]:  # A certificate would be an authority.
        text = f"{path} must hold revocation lists (BEGIN X509 CRL) and nothing else"
        raise EndpointError(errno.EINVAL, text)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _comparable(name: str) -> str:
    """Return a name in the form that is compared: host names without case, IP addresses in their shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _file_stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _no_password() -> str:
    raise InvalidSetting("the key is encrypted; give an unencrypted one, in a file that only this user can read")
