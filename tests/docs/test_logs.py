"""The table of loggers in the guide, compared with the loggers and levels in the code."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical"}
ROW = re.compile(r"^\| `(threepipe[.\w]*)` \| (\w+) \| \S", re.MULTILINE)


def loggers(tree: ast.AST) -> dict[str, str]:
    """Return the names of the loggers in a module, by their variables."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
            assert isinstance(node.value, ast.Call)
            found[ast.unparse(node.targets[0])] = str(ast.literal_eval(node.value.args[0]))
    return found


def written(path: Path) -> set[tuple[str, str]]:
    """Return logger and level of every line that a module logs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    variables = loggers(tree)
    named = {node.attr.lower() for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & LEVELS
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            logger, method = variables.get(ast.unparse(node.func.value)), node.func.attr
            if logger and method in LEVELS:
                found.add((logger, method))
            elif logger and method in ("log", "makeRecord"):  # With a level that is a value.
                found |= {(logger, level) for level in named}
    return found


def test_the_guide_lists_every_logger_with_its_levels() -> None:
    sources = (ROOT / "src" / "threepipe").rglob("*.py")
    code = set[tuple[str, str]]().union(*map(written, sources))
    rows = ROW.findall((ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))
    assert len(rows) == len(set(rows))
    assert set(rows) == code
    assert {name.split(".")[0] for name, _ in code} == {"threepipe"}
