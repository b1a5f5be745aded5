"""Addresses of endpoints: quoting, parsing and the reasons of errors."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import threepipe
from threepipe.endpoints.grammar import AddressParts, split_address

text = st.text(st.characters(codec="utf-8"), max_size=20)
words = st.text(st.characters(codec="utf-8", exclude_characters=":,\\'\""), min_size=1, max_size=10)
kinds = words.filter(lambda word: word not in ("-", "exec"))
names = words.filter(lambda word: "=" not in word)


def in_single_quotes(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def in_double_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def behind_backslashes(text: str) -> str:
    return "".join(f"\\{character}" if character in ",'\"\\" else character for character in text)


def in_turns(text: str) -> str:
    """Quote each character in another way."""
    ways = (in_single_quotes, in_double_quotes, behind_backslashes)
    return "".join(ways[index % 3](character) for index, character in enumerate(text))


quoting = st.sampled_from([in_single_quotes, in_double_quotes, behind_backslashes, in_turns])


@given(kinds, text, st.lists(st.tuples(names, st.none() | text), max_size=4), quoting)
def test_a_quoted_address_parses_to_its_parts(kind, place, options, quote) -> None:  # type: ignore[no-untyped-def]
    written = kind + (f":{quote(place)}" if place else "")
    for name, value in options:
        written += f",{name}" if value is None else f",{name}={quote(value)}"
    assert split_address(written) == AddressParts(kind, place, tuple(options))


@given(text)
@example("'")
@example('"\\')
@example("\\")
@example("a:b,,")
@example("a,=")
def test_any_text_parses_or_raises_with_the_text(written: str) -> None:
    said = ""
    try:
        options = split_address(written).options
    except threepipe.InvalidSetting as error:
        said, options = str(error), ()
    assert all(name for name, _ in options)
    assert not said or repr(written) in said


@given(text)
def test_any_place_or_option_opens_or_raises_with_a_reason(written: str) -> None:
    for address in (f"echo:{written}", f"echo,{written}", f"nonsense:{written}", f"fd:x{written}"):
        said = "opened, without a word"
        try:
            threepipe.open_endpoint(address).close()
        except threepipe.InvalidSetting as error:
            said = str(error)
        assert len(said) > 20


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("echo", ("echo", "", ())),
        ("-", ("stdio", "", ())),
        ("tun:tp0,address=10.6.7.1/24,address=fd67::1/64,persistent", (
            "tun", "tp0", (("address", "10.6.7.1/24"), ("address", "fd67::1/64"), ("persistent", None))
        )),
        ("tcp:[::1]:4242", ("tcp", "[::1]:4242", ())),
        ("unix:/run/a\\,b.sock", ("unix", "/run/a,b.sock", ())),
        ("unix:'/run/a,b.sock',reuse=off", ("unix", "/run/a,b.sock", (("reuse", "off"),))),
        ("unix:/run/'a, b'\".\"sock", ("unix", "/run/a, b.sock", ())),
        ("tls:h:1,key='it''s'", ("tls", "h:1", (("key", "its"),))),
        ("pcap:C:\\new\\x.pcap,loop", ("pcap", "C:\\new\\x.pcap", (("loop", None),))),
        ("pcap:'C:\\new folder\\x.pcap'", ("pcap", "C:\\new folder\\x.pcap", ())),
        ("x:a,b=c=d", ("x", "a", (("b", "c=d"),))),
        ("x:a,b=", ("x", "a", (("b", ""),))),
        ("x:", ("x", "", ())),
        ("", ("", "", ())),
    ],
)  # fmt: skip
def test_an_example_address_parses_to_its_parts(written: str, read: tuple[object, ...]) -> None:
    assert split_address(written) == read


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("echo,", "an option has no name"),
        ("tun:tp0,,mtu=1400", "an option has no name"),
        ("tun:tp0,=1", "an option has no name"),
        ("unix:'/run/x", r"a quote \('\) is not closed; write \\' for a literal one"),
        ('unix:"/run/x', r'a quote \("\) is not closed; write \\" for a literal one'),
        ("unix:/run/x\\", r"ends with a backslash; write \\\\ for a literal one"),
    ],
)
def test_an_address_that_does_not_parse_raises_with_the_reason(written: str, text: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=text) as refused:
        threepipe.open_endpoint(written)
    assert repr(written) in str(refused.value)
