"""Put the pages of the site together in build/docs, and build them into build/site.

    make docs          # strictly: a dead link, anchor or picture fails
    make docs-serve    # shows them on localhost, and anew after each change
    make site          # as make docs, but fetches nothing by npm; the live page may lack its Python. Part of make test

The pages are those of docs/, and files of the root that people look for there. A link to another file of the
repository becomes the file's name, as the site does not have it. A line `# examples/NAME.py` becomes that program.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from live_page import add_parts

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
FROM_ROOT = {"SECURITY.md": "security-policy.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root -> their names in the site."""

PROGRAM = re.compile(r"^# (examples/\w+\.py)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]*)(#[^)\s]*)?\)")


def sources() -> dict[Path, Path]:
    """Return the files of the site, and where they are in the repository."""
    docs = ROOT / "docs"
    found = {path.relative_to(docs): path for path in docs.rglob("*") if path.is_file()}
    return found | {Path(name): ROOT / source for source, name in FROM_ROOT.items()}


def with_links_of_the_site(text: str, source: Path, files: dict[Path, Path]) -> str:
    """Return a page's text, with links that lead to other pages of the site, or to no page at all."""
    names = {path: name for name, path in files.items()}
    (folder,) = [name.parent for name, path in files.items() if path == source]

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        path = Path(os.path.normpath(source.parent / target))
        if name := names.get(path):
            return f"[{words}]({Path(os.path.relpath(name, folder)).as_posix()}{anchor or ''})"
        if path.is_relative_to(ROOT / "docs"):
            return match[0]  # The builder says that it is dead.
        if not path.exists():
            raise SystemExit(f"{source.relative_to(ROOT)}: {target} does not exist; correct the link")
        name_there = f"`{path.relative_to(ROOT).as_posix()}`"
        return name_there if words.strip("`") in (path.name, name_there.strip("`")) else f"{words} ({name_there})"

    return LINK.sub(link, text)


def with_programs(text: str) -> str:
    """Return a page's text with the programs that it names in a line of their own."""
    return PROGRAM.sub(lambda match: (ROOT / match[1]).read_text(encoding="utf-8").rstrip("\n"), text)


def prepare(fetch: bool = True) -> None:
    """Bring build/docs up to date. A file that has not changed is not written, so that nothing is built for it."""
    files = sources()
    parts = add_parts(PAGES / "assets" / "live", fetch)
    for path in PAGES.rglob("*"):
        if path.is_file() and path.relative_to(PAGES) not in files and path not in parts:
            path.unlink()
    for name, source in files.items():
        data = source.read_bytes()
        if source.suffix == ".md":
            data = with_programs(with_links_of_the_site(data.decode(), source, files)).encode()
        target = PAGES / name
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


class _Page(HTMLParser):
    """The anchors of a page, and the addresses that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "__top"}
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.targets.add(value)


def faults() -> Iterator[str]:
    """Yield a line for each reference within the built site that leads nowhere."""
    pages = {path: _Page(path.read_text()) for path in SITE.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for target in sorted(page.targets):
            address = urlsplit(target)
            if address.scheme or address.netloc or target == "#__skip":
                continue
            goal = Path(os.path.normpath(path.parent / unquote(address.path))) if address.path else path
            if goal.is_dir():
                goal /= "index.html"
            if not goal.exists() or (goal in pages and unquote(address.fragment) not in pages[goal].anchors):
                yield f"{path.relative_to(SITE)}: {target} leads nowhere"


def build(fetch: bool = True) -> int:
    """Build the site, and return the exit status."""
    shutil.rmtree(SITE, ignore_errors=True)
    prepare(fetch)
    if status := subprocess.run([_zensical(), "build", "--clean", "--strict"], cwd=ROOT).returncode:
        return status
    found = list(faults())
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


def serve() -> int:
    """Show the site until Ctrl-C."""
    prepare()
    ended = threading.Event()
    threading.Thread(target=_repeat, args=(prepare, ended), daemon=True).start()
    try:
        return subprocess.run([_zensical(), "serve"], cwd=ROOT).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        ended.set()


def _repeat(action: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(1):
        try:
            action()
        except (OSError, SystemExit) as error:  # Such as a page that is being written, or a dead link in it.
            print(error, file=sys.stderr)


def _zensical() -> str:
    return str(Path(sys.executable).with_name("zensical"))


if __name__ == "__main__":
    sys.exit(serve() if "--serve" in sys.argv else build(fetch="--no-fetch" not in sys.argv))
