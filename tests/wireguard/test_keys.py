"""Keys that the library makes, as wg(8) makes them, and errors that show none."""

import pytest

from threepipe.errors import InvalidSetting
from threepipe.wireguard import generate_key, key_to_text, public_key
from threepipe.wireguard.keys import generate_preshared_key

SECRET = bytes(range(100, 132))  # Always the same, as names of tests have it.


def test_a_private_key_is_new_and_has_the_bits_of_x25519() -> None:
    keys = {generate_key() for _ in range(50)}
    assert len(keys) == 50
    for key in keys:
        assert (len(key), key[0] & 7, key[31] >> 6) == (32, 0, 1)


def test_preshared_keys_have_32_bytes_and_differ() -> None:
    assert len({generate_preshared_key() for _ in range(50)}) == 50
    assert len(generate_preshared_key()) == 32


def test_a_public_key_is_that_of_the_bytes_and_of_the_text() -> None:
    # As `wg pubkey` prints it for the key of wg(8)'s example.
    text = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    assert key_to_text(public_key(text)) == "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
    key = generate_key()
    assert public_key(key) == public_key(key_to_text(key)) == public_key(f" {key_to_text(key)}\n")


@pytest.mark.parametrize("wrong", [b"", SECRET[:31], SECRET * 2, "", key_to_text(SECRET)[:-2], key_to_text(SECRET) * 2])
def test_a_wrong_private_key_is_refused_and_not_shown(wrong: bytes | str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        public_key(wrong)
    assert key_to_text(SECRET)[:20] not in str(caught.value)
    assert repr(SECRET)[2:20] not in str(caught.value)
