"""The benchmarks' command line and goals; nothing is measured."""

from collections.abc import Sequence

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import __main__ as program
from benchmarks.contenders import Contender
from benchmarks.goals import GOALS, outcomes
from benchmarks.results import Results, Sample
from benchmarks.runner import Order
from benchmarks.workloads import WORKLOADS, Workload


class Runs:
    """Stands for `benchmarks.runner.run`: notes what it should measure, and measures `figure` for each."""

    def __init__(self, figure: float) -> None:
        self.figure = figure
        self.rounds = self.seconds = 0
        self.workloads: list[str] = []
        self.contenders: list[str] = []

    def __call__(
        self,
        results: Results,
        rounds: int,
        seconds: int,
        workloads: Sequence[Workload],
        contenders: Sequence[Contender],
        order: Order,
    ) -> bool:
        del order
        self.rounds, self.seconds = rounds, seconds
        self.workloads = [row.key for row in workloads]
        self.contenders = [row.key for row in contenders]
        for row in workloads:
            figures = {metric.key: self.figure for metric in row.metrics}
            results.samples += [Sample(1, row.key, contender, figures) for contender in self.contenders]
        return True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs(1.0)
    monkeypatch.setattr(program, "run", runs)
    monkeypatch.setattr(program, "_check_machine", lambda _: None)
    return runs


def call(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(program.main)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def goals_in(output: str) -> set[str]:
    """Return the workloads of the goals that are shown."""
    _, _, table = output.partition("Goals:")
    return {word for word in table.split() if word in WORKLOADS}


def test_quick_run_takes_few_short_rounds_of_the_most_telling_workloads(runs: Runs) -> None:
    call("--quick")

    assert (runs.rounds, runs.seconds) == (3, 1)
    assert {"tcp4", "answer", "pipe-udp", "wg-tcp", "import"} <= set(runs.workloads)
    assert len(runs.workloads) < len(WORKLOADS) / 2


def test_quick_run_measures_both_sides_of_each_goal_that_it_shows(runs: Runs) -> None:
    shown = goals_in(call("--quick"))

    assert shown <= set(runs.workloads)
    assert "wg-tcp" in shown
    assert {"tcp6", "look", "wg-udp"}.isdisjoint(shown)


def test_options_count_beside_quick(runs: Runs) -> None:
    output = call("--quick", "--only", "rtt", "--rounds", "7")

    assert (runs.rounds, runs.seconds, runs.workloads) == (7, 1, ["rtt"])
    assert goals_in(output) == {"rtt"}


def test_run_without_quick_measures_everything(runs: Runs) -> None:
    call()

    assert (runs.rounds, runs.seconds, runs.workloads) == (5, 3, list(WORKLOADS))


def test_goal_without_a_measured_base_has_no_outcome() -> None:
    results = Results(
        [Sample(1, "tcp4", "threepipe-native", {"gbit": 9.0}), Sample(1, "tcp4", "tun-rs", {"gbit": 3.0})]
    )

    assert [(each.goal.workload, each.base, each.value) for each in outcomes(results, GOALS)] == [
        ("tcp4", "tun-rs", 3.0)
    ]
