"""The parsers that configuration files and the configuration protocol share."""

import pytest

from threepipe.wireguard.fields import number, parse_endpoint


def test_a_number_has_decimal_digits_unless_any_base_is_allowed() -> None:
    assert number(65535)("0051820") == 51820
    assert number(0xFFFFFFFF, any_base=True)("0xca6c") == 0xCA6C
    for text in ("0xca6c", "-1", "65536", "", " 1", "1_0", "\N{SUPERSCRIPT TWO}", "x"):
        with pytest.raises(ValueError, match="is not a number from 0 to 65535"):
            number(65535)(text)
    for text in ("-1", "0x10000", "", "x"):
        with pytest.raises(ValueError, match="is not a number from 0 to 65535"):
            number(65535, any_base=True)(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("vpn.example.org:1", ("vpn.example.org", 1)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[2001:DB8::1]:0", ("2001:db8::1", 0)),
        ("[fe80::1%eth0]:5", ("fe80::1%eth0", 5)),
    ],
)
def test_an_endpoint_has_a_host_and_a_port(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", "host", "host:", ":5", "::1:5", "[192.0.2.1]:5", "[]:5", "a b:5", "host:65536"])
def test_an_endpoint_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it as NAME:PORT|is not a number"):
        parse_endpoint(text)
