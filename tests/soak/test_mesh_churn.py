"""A mesh whose nodes join, leave, move and die at random, and whose links are cut, beside a model of them.

It takes two minutes. THREEPIPE_MESH_SECONDS says how many seconds it takes instead, such as 1800; THREEPIPE_MESH_SEED
chooses the events.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mesh_agents import agent_lab, missing
from tests.support.mesh_churn import Churn, lacking

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.soak,
    pytest.mark.skipif(
        bool(missing() + lacking()),
        reason=f"{', '.join(missing() + lacking())}: not there; install nats-server, nftables, babeld",
    ),
]

SECONDS = float(os.environ.get("THREEPIPE_MESH_SECONDS", "120"))
SEED = int(os.environ.get("THREEPIPE_MESH_SEED", "1"))
NODES, LIMIT = 8, 5.0


@pytest.mark.timeout(SECONDS + 300)
def test_no_black_hole_of_a_mesh_in_change_is_longer_than_five_seconds(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab, ExitStack() as stack:
        churn = Churn(lab, stack, NODES, SEED)
        churn.run(SECONDS)
        print(  # noqa: T201
            f"\nseed {SEED}, {SECONDS:.0f} s, {NODES} nodes; {dict(churn.events)}; {churn.sent} datagrams,"
            f" {churn.sent - churn.arrived} lost; the longest holes:",
            *churn.holes,
            "; ".join(churn.told),
            sep="\n",
        )
        assert [hole for hole in churn.holes if hole.seconds > LIMIT] == []
