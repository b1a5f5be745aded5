"""The built site in headless Chromium: the live page by mouse and keyboard, wide and narrow, and without a network.

Run by `make test-docs`, which names the site by THREEPIPE_SITE. THREEPIPE_PICTURES names a folder for screenshots.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, browser, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SITE = Path(os.environ.get("THREEPIPE_SITE", "build/site"))
EXAMPLES = {
    "1-echo.py": "8 10.6.7.2 > 10.6.7.1 protocol 1 6028 bytes",
    "2-ring.py": "14 of 20 packets fit in",
    "3-bundle.py": "unpacked alike: True",
    "4-superpacket.py": "split again, byte for byte: True",
    "5-asyncio.py": "answer 5 of 5048 bytes",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(SITE) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "run (Debian): apt-get install chromium"
    with browser(program, tmp_path_factory.mktemp("chromium")) as made:
        yield made


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Browser]:
    """Return the live page, ready to run programs."""
    chromium.complaints.clear()
    chromium.requested.clear()
    chromium.show(f"{address}live/")
    chromium.until("['ready', 'failed'].includes(document.getElementById('live-status').dataset.state)")
    assert state(chromium) == "ready", text(chromium, "status")
    yield chromium
    assert chromium.complaints == []


def text(page: Browser, name: str) -> str:
    return str(page.value(f"document.getElementById('live-{name}').textContent"))


def state(page: Browser) -> str:
    return str(page.value("document.getElementById('live-status').dataset.state"))


def ended(page: Browser) -> str:
    """Wait for the end of the program, and return the state."""
    page.until("['done', 'error'].includes(document.getElementById('live-status').dataset.state)")
    return state(page)


def write(page: Browser, program: str) -> None:
    """Replace the program, as somebody who types it."""
    page.value("document.getElementById('live-program').focus(); document.getElementById('live-program').select()")
    page.call("Input.insertText", text=program)


def save(page: Browser, name: str) -> None:
    if folder := os.environ.get("THREEPIPE_PICTURES"):
        page.picture(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_shows_its_output_packets_and_rings(page: Browser, example: str) -> None:
    page.value(f"""(() => {{ const choice = document.getElementById("live-choice");
        choice.value = {example!r}; choice.dispatchEvent(new Event("change")); }})()""")
    source = (SITE / "assets" / "live" / example).read_text(encoding="utf-8")
    page.until(f"document.getElementById('live-program').value.startsWith({source.splitlines()[0]!r})")
    page.click("#live-run")
    assert ended(page) == "done", text(page, "output")
    assert EXAMPLES[example] in text(page, "output")
    steps = page.value("Number(document.getElementById('live-step').max)")
    assert text(page, "counter") == f"Step {steps} of {steps}"
    assert page.value("document.getElementById('live-packets').rows.length") >= steps > 1
    assert "head" in text(page, "ring-1")
    save(page, example.removesuffix(".py"))


def test_the_steps_show_head_and_tail_of_the_ring(page: Browser) -> None:
    program = """import threepipe
a, b = threepipe.MemoryAdapter.pair()
with a.start_session(0x20000) as left, b.start_session(0x20000) as right:
    left.send([b"\\x45" + bytes(999)] * 3)
    right.receive(timeout=0)
"""
    write(page, program)
    page.click("#live-run")
    assert ended(page) == "done", text(page, "output")
    shown = []
    for step in range(3):
        page.value(f"""(() => {{ const slider = document.getElementById("live-step");
            slider.value = {step}; slider.dispatchEvent(new Event("input")); }})()""")
        shown.append(page.value("document.querySelector('#live-ring-1 figcaption').textContent"))
    length = 3 * 1004
    assert shown == [
        f"Ring 1: head {head}, tail {tail}, of 131072 bytes" for head, tail in ((0, 0), (0, length), (length, length))
    ]


def test_the_steps_are_played_unless_less_motion_is_preferred(page: Browser, address: str) -> None:
    page.show(f"{address}live/", motion="no-preference")
    page.until("document.getElementById('live-status').dataset.state == 'ready'")
    page.click("#live-run")
    assert ended(page) == "done"
    page.until("document.getElementById('live-counter').textContent == 'Step 2 of 32'")
    page.click("#live-play")
    assert text(page, "play") == "Play"
    page.click("#live-play")
    assert text(page, "play") == "Pause"


def test_an_error_of_the_program_names_its_line_and_the_page_goes_on(page: Browser) -> None:
    write(page, "import threepipe\nthreepipe.MemoryAdapter.pair(mtu=1)\n")
    page.click("#live-run")
    assert ended(page) == "error"
    assert 'File "program.py", line 2' in text(page, "output")
    assert "InvalidSetting" in text(page, "output")
    write(page, "print(6 * 7)")
    page.click("#live-run")
    assert ended(page) == "done"
    assert text(page, "output") == "42\n"


def test_a_program_that_hangs_is_stopped_and_the_next_one_runs(page: Browser) -> None:
    write(page, "while True: pass")
    page.click("#live-run")
    page.until("document.getElementById('live-status').dataset.state == 'running'")
    page.click("#live-stop")
    page.until("document.getElementById('live-status').dataset.state == 'ready'")
    write(page, "print('again')")
    page.click("#live-run")
    assert ended(page) == "done"
    assert text(page, "output") == "again\n"


def test_everything_can_be_done_by_keyboard(page: Browser) -> None:
    page.value("document.getElementById('live-program').focus()")
    page.press("Enter", control=True)
    assert ended(page) == "done", text(page, "output")
    page.press("Tab")  # To the output, as no key is caught in the program.
    assert page.value("document.activeElement.id") == "live-output"
    page.press("Tab")
    assert page.value("document.activeElement.id") == "live-play"
    page.press("Tab")
    assert page.value("document.activeElement.id") == "live-step"
    page.press("Home")
    assert text(page, "counter").startswith("Step 0 of ")
    page.press("ArrowRight")
    assert text(page, "counter").startswith("Step 1 of ")
    page.press("Tab")
    assert page.value("document.activeElement.getAttribute('aria-label')") == "Packets"


@pytest.mark.parametrize(("path", "name"), [("", "home"), ("live/", "live"), ("reference/threepipe/", "reference")])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_window_and_asks_for_no_other_host(
    chromium: Browser, address: str, path: str, name: str, width: int, scheme: str
) -> None:
    chromium.requested.clear()
    chromium.show(f"{address}{path}", width, 900, scheme)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert {url for url in chromium.requested if not url.startswith((address, "data:", "blob:"))} == set()
    save(chromium, f"{name}-{width}-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_live_page_with_packets_fits_a_narrow_window(page: Browser, address: str, scheme: str) -> None:
    page.show(f"{address}live/", 320, 800, scheme)
    page.until("document.getElementById('live-status').dataset.state == 'ready'")
    page.click("#live-run")
    assert ended(page) == "done"
    assert page.value("document.documentElement.scrollWidth") <= 320
    save(page, f"narrow-{scheme}")


def test_the_tutorial_shows_its_program(chromium: Browser, address: str) -> None:
    chromium.show(f"{address}tutorial/vpn/")
    shown = chromium.value("[...document.querySelectorAll('code')].map(code => code.textContent).join('\\n')")
    assert (Path(__file__).parents[2] / "examples" / "vpn.py").read_text(encoding="utf-8").rstrip() in shown


def test_the_home_page_is_one_screen(chromium: Browser, address: str) -> None:
    chromium.show(address, 1280, 900)
    assert chromium.value("document.querySelector('img.picture').getBoundingClientRect().bottom") <= 900
