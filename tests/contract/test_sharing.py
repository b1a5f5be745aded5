"""Adapters that another process goes on with: whose the interface is decides what closing does."""

import pytest

import threepipe
from threepipe import platforms
from threepipe.adapter import Adapter, adopt, claim, give_away, is_given, share
from threepipe.backend import Share


class Device:
    """A device that can be shared, without a system."""

    def __init__(self) -> None:
        self.given = False
        self.name, self.index = "tp0", 7
        self.removed = False

    def share(self) -> Share:
        return Share(self.name, self.index, {"offload": 1}, [3, 4])

    def close(self) -> None:
        self.removed = not self.given


def test_a_shared_adapter_is_removed_unless_it_was_given_away() -> None:
    for given in (False, True):
        device = Device()
        adapter = Adapter(device)  # type: ignore[arg-type]
        assert share(adapter) == Share("tp0", 7, {"offload": 1}, [3, 4])
        if given:
            give_away(adapter)
        assert is_given(adapter) is given
        adapter.close()
        assert device.removed is not given
        with pytest.raises(threepipe.AdapterClosed):
            share(adapter)


def test_an_adopted_adapter_is_removed_only_once_it_was_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    for claimed in (False, True):
        device = Device()
        device.given = True
        monkeypatch.setattr(platforms, "adopt", lambda shared, made=device: made)
        adapter = adopt(Share("tp0", 7, {}, []))
        if claimed:
            claim(adapter)
        adapter.close()
        assert device.removed is claimed


def test_an_adapter_of_a_system_without_sharing_says_so() -> None:
    class Plain:
        name, index = "tp0", 7

        def close(self) -> None: ...

    adapter = Adapter(Plain())  # type: ignore[arg-type]
    with pytest.raises(threepipe.AdapterUnavailable, match="cannot be taken over"):
        share(adapter)
    assert not is_given(adapter)
