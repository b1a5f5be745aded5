"""Certificates with chosen names, and revocation lists, of the authority of a place."""

from datetime import UTC, datetime, timedelta
from typing import cast

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tests.support.endpoints import Place, issue

__all__ = ["issued", "revoke"]

_DAY = timedelta(days=1)


def issued(place: Place, side: str, *names: str, common_name: str | None = None) -> None:
    """Give `side` another certificate, with these names."""
    assert place.authority is not None
    issue(place.authority, place.folder, side, *names, common_name=common_name)


def revoke(
    place: Place, name: str, *sides: str, authority: trustme.CA | None = None, age: timedelta = timedelta()
) -> None:
    """Write a list to the file `name` that revokes the certificates of `sides`, good for a week."""
    authority = authority or place.authority
    assert authority is not None
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    start = datetime.now(UTC) - _DAY - age
    builder = x509.CertificateRevocationListBuilder(issuer.subject, start, start + 7 * _DAY)
    for side in sides:
        certificate = x509.load_pem_x509_certificate((place.folder / f"{side}.pem").read_bytes())
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder(certificate.serial_number, start).build()
        )
    signed = builder.sign(cast(EllipticCurvePrivateKey, key), hashes.SHA256())
    (place.folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
