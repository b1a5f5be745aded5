"""The parsers that configuration files and the configuration protocol share."""

import pytest

from threepipe.wireguard.fields import number, parse_endpoint


@pytest.mark.parametrize(
    ("forms", "text", "value"),
    [
        ({}, "0", 0),
        ({}, "051820", 51820),
        ({}, "65535", 65535),
        ({"hexadecimal": True}, "0xfFfF", 0xFFFF),
        ({"hexadecimal": True}, "010", 10),
        ({"hexadecimal": True, "octal": True}, "0x10", 16),
        ({"hexadecimal": True, "octal": True}, "010", 8),
        ({"hexadecimal": True, "octal": True}, "0", 0),
    ],
)
def test_a_number_is_read_as_by_c(forms: dict[str, bool], text: str, value: int) -> None:
    assert number(65535, **forms)(text) == value


NO_NUMBERS = ("", "-1", "+1", " 1", "1 ", "1_0", "0b1", "0o7", "1.0", "x", "65536", "9" * 5000, "\N{SUPERSCRIPT TWO}")
"""Texts that no form of numbers has; Python's int() takes some of them."""


@pytest.mark.parametrize("text", [*NO_NUMBERS, "\N{ARABIC-INDIC DIGIT THREE}", "0x", "0x10000", "0X1", "0x_1", "0x0x1"])
def test_another_text_is_not_a_number(text: str) -> None:
    for forms in ({}, {"hexadecimal": True}, {"hexadecimal": True, "octal": True}):
        with pytest.raises(ValueError, match="is not a number from 0 to 65535"):
            number(65535, **forms)(text)
    for text_of_form, form in (("0x1", {}), ("08", {"octal": True})):
        with pytest.raises(ValueError, match="is not a number from 0 to 65535"):
            number(65535, **form)(text_of_form)


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
