"""The reasons for which tests are skipped, against the table in CONTRIBUTING that says what each of them needs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_OF_MAKE_TEST = {"soak", "wine"}
NEVER_ON_LINUX = re.compile(r"not hasattr\(.*\)|not HAS_UNIX|sys\.platform (== 'win32'|!= 'linux')")


def reasons(tree: ast.AST, conditions: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the reasons below `tree` for which tests may be skipped on Linux."""
    if isinstance(tree, ast.Call):
        named = {keyword.arg: keyword.value for keyword in tree.keywords}
        match ast.unparse(tree.func).rpartition(".")[2]:
            case "skip":
                yield from literal(tree.args[0], conditions)
            case "skipif":
                yield from literal(named["reason"], (*conditions, ast.unparse(tree.args[0])))
            case "importorskip":
                yield from literal(named["reason"], conditions)
    for child in ast.iter_child_nodes(tree):
        within = isinstance(tree, ast.If) and child in tree.body
        yield from reasons(child, (*conditions, ast.unparse(tree.test)) if within else conditions)  # type: ignore[attr-defined]


def literal(reason: ast.expr, conditions: tuple[str, ...]) -> Iterator[str]:
    """Yield the text of a reason, without the parts that are computed, unless the conditions are of other systems."""
    if any(NEVER_ON_LINUX.fullmatch(condition) for condition in conditions):
        return
    parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    if text != "…":  # Else it comes from elsewhere.
        yield text


def test_every_reason_for_skipping_is_explained_and_none_is_obsolete() -> None:
    found = {
        text
        for path in (ROOT / "tests").rglob("*.py")
        if path.relative_to(ROOT / "tests").parts[0] not in NOT_OF_MAKE_TEST
        for text in reasons(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(found) > 10
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\".*?\") \| .* \|$", page.partition("### Skipped tests")[2], re.MULTILINE)
    phrases = {phrase for row in table for phrase in re.findall(r'"(.*?)"', row)}
    assert {text for text in found if not any(phrase in text for phrase in phrases)} == set()
    assert {phrase for phrase in phrases if not any(phrase in text for text in found)} == set()
