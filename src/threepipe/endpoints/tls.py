"""TLS for streams: version 1.3 only, and both ends have to show a certificate of the authority given."""

import errno
import ssl
from typing import NamedTuple

from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["Credentials"]


class Credentials(NamedTuple):
    """Paths of PEM files: an own certificate (with its chain), its key, and the authority of the other end."""

    cert: str
    key: str
    ca: str

    def context(self, *, server: bool) -> ssl.SSLContext:
        """For one of the two sides. Raises `EndpointError` where the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            text = f"{self.cert}, {self.key} and {self.ca}: {error.reason or error}; PEM files of one pair are wanted"
            raise EndpointError(errno.EINVAL, text) from None
        except OSError as error:
            text = f"one of {self.cert}, {self.key} and {self.ca} cannot be read: {error.strerror}"
            raise EndpointError(error.errno, text) from None
        return context


def _no_password() -> str:
    raise InvalidSetting("the key is encrypted; give one that is not, in a file that only this user may read")
