"""Counts lines of code, without comments, docstrings and blanks, of the files named: by pygount."""

import sys

import pygount


def main(paths: list[str]) -> None:
    counts = {path: pygount.SourceAnalysis.from_file(path, "threepipe").code_count for path in paths}
    for path, count in counts.items():
        print(f"{count:5} {path}")
    print(f"{sum(counts.values()):5} lines of code: the contract and its Linux and memory platforms")


if __name__ == "__main__":
    main(sys.argv[1:])
