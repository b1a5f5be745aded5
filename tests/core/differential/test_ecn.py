"""ECN fields combined by both implementations, for any bytes that are long enough for a header."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import Core, contents, copies, of_both, property_of


@property_of(300)
@given(st.lists(st.binary(min_size=20, max_size=60), max_size=8), st.integers(0, 3))
def test_any_bytes_are_combined_alike(packets: list[bytes], outer: int) -> None:
    def ask(core: Core) -> object:
        mine = copies(packets)
        return contents(core.combine_ecn(mine, outer)), contents(mine)

    of_both(ask)
