"""Count lines of code, without comments, docstrings and blank lines, by pygount."""

import argparse
from collections.abc import Sequence

import pygount

TITLES = {
    "contract": "the contract with its Linux and memory platforms, without superpackets",
    "superpackets": "superpackets",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, title in TITLES.items():
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE", help=f"files of {title}")
    for name, paths in vars(parser.parse_args()).items():
        print_counts(TITLES[name], paths)


def print_counts(title: str, paths: Sequence[str]) -> None:
    """Print the count of each file, and their sum."""
    counts = {path: pygount.SourceAnalysis.from_file(path, "threepipe").code_count for path in paths}
    for path, count in counts.items():
        print(f"{count:7,} {path}")
    print(f"{sum(counts.values()):7,} lines of code: {title}")


if __name__ == "__main__":
    main()
