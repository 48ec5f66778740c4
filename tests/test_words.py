"""Words: plain technical English in messages, documentation, comments and names (docs/glossary.md has the terms)."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import pytest

from tests.paths import ROOT

# The whole tree but what records and texts of others hold: LICENSE, locks and benchmarks/results.
CHECKED = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "containerfile", "pyproject.toml", ".ci"),
    *("docs", "recipes", "requirements", "runner", "stages", "tests", "benchmarks"),
)
RECORDS = ROOT / "benchmarks" / "results"  # output of runs
RECORD = re.compile(r"<!-- begin .*?<!-- end .*?-->", re.DOTALL)  # the same in RESULTS.md
LISTS = Path(__file__)  # this file, which holds the banned words
# Modules whose strings are rows of a data set: only their docstrings, comments and names are checked.
ROWS = ("stages/data/generated/frames.py",)
TEXTS = frozenset({".md", ".yaml", ".yml", ".json", ".toml", ".in", ".txt", ".sh", ".html", ".css", ".js", ".j2", ""})

# Pattern (words separated by one space), what to write instead, a sentence that the pattern must find.
BANNED = (
    (r"(take|takes|taken|taking|took)( it| them| this| these)? over", "reuse, use", "the result is taken over"),
    (r"(go|goes|going|gone|went) on", "continue, resume", "the run goes on with train"),
    (r"mend(s|ed|ing)?", "repair, correct, fix", "mends the file"),
    (r"torn", "corrupt, incomplete", "a torn line"),
    (r"beside", "next to, with, while ... runs", "a file beside the adapter"),
    (
        r"(room (for|to|on|in|left))|((no|more|enough|has|have|makes?|leaves?) room)",
        "capacity, memory, space",
        "no room",
    ),
    (r"said|says no", "name the key or the speaker: `the gate refused`", "as the batch said"),
    (
        r"(?<!there )(is|are|was|were) no (?!longer|more|other|different|less|later|better|worse|matter)\S+",
        "is not a, is not one of",
        "the file is no recipe",
    ),
    (r"for ever", "forever, without end", "it waits for ever"),
    (r"(come|comes|coming|came) back", "return, restart, recover", "the node comes back"),
    (r"anew|afresh", "again", "rendered anew"),
)
# Names (of functions, variables, files) that do not say what they hold; the words above are banned in them too.
NAMES = (
    (r"told", "name what it holds: reported, known, notified", "told"),
    (r"(?!test )[a-z ]+ alone", "name what it does: only, single", "in_place_alone"),
)


def findings(path: Path) -> list[str]:
    """Every banned phrase of a file as ``file:line: phrase -> replacement``."""
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    if path.suffix == ".py":
        prose = _python_prose(text, strings=str(where) not in ROWS)
    else:
        prose = [(1, RECORD.sub(lambda record: "\n" * record.group().count("\n"), text))]
    found = [*_in_prose(prose)]
    if path.suffix == ".py":
        found += _in_names(text)
    return [f"{where}:{line}: {phrase!r} -> {use}" for line, phrase, use in sorted(found)]


def _in_prose(passages: Iterator[tuple[int, str]] | list[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    for first, text in passages:
        words = [word for word in re.finditer(r"\S+", text) if word.group() != "#"]
        joined = " ".join(word.group() for word in words)
        for pattern, use in _compiled(BANNED):
            for match in pattern.finditer(joined):
                start = words[joined[: match.start()].count(" ")].start()
                yield first + text[:start].count("\n"), match.group(), use


def _python_prose(text: str, strings: bool) -> Iterator[tuple[int, str]]:
    """Comments and strings with their line: every string, or only docstrings."""
    yield from _comments(text)
    yield from _strings(ast.parse(text)) if strings else _docstrings(ast.parse(text))


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Adjacent strings joined, and each value of an f-string as `value`."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)]
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(getattr(part, "value", "") if _is_text(part) else "value" for part in node.values),
            )
        elif _is_text(node) and id(node) not in inner:
            yield node.lineno, node.value


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node, False)):
            yield node.body[0].lineno, doc


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@lru_cache(maxsize=1)
def _tokens(text: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(text).readline))


def _comments(text: str) -> Iterator[tuple[int, str]]:
    first, lines = 0, []
    for token in _tokens(text):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != first + len(lines):
            yield first, "\n".join(lines)
            lines = []
        first = first if lines else token.start[0]
        lines.append(token.string.lstrip("#"))
    yield first, "\n".join(lines)


def _in_names(text: str) -> Iterator[tuple[int, str, str]]:
    seen = set()
    for token in _tokens(text):
        if token.type == tokenize.NAME and token.string not in seen:
            seen.add(token.string)
            words = token.string.strip("_").replace("_", " ")
            whole = [use for pattern, use in _compiled(NAMES) if pattern.fullmatch(words)]
            uses = whole + [use for pattern, use in _compiled(BANNED) if pattern.search(words)]
            yield from ((token.start[0], token.string, use) for use in uses)


@cache
def _compiled(table: tuple[tuple[str, str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), use) for pattern, use, _ in table]


def _files(name: str) -> list[Path]:
    root = ROOT / name
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    texts = [path for path in paths if path.suffix in TEXTS | {".py"} and "__pycache__" not in path.parts]
    return [path for path in texts if path != LISTS and RECORDS not in path.parents]


@pytest.mark.parametrize("name", CHECKED)
def test_the_words_are_those_of_the_glossary(name):
    assert _files(name), f"{name} has no file that could be checked"
    found = [finding for path in _files(name) for finding in findings(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("pattern", "sentence"), [(pattern, sentence) for pattern, _, sentence in BANNED])
def test_each_banned_phrase_is_found_in_its_sentence(pattern, sentence):
    assert re.search(rf"\b(?:{pattern})\b", sentence, re.IGNORECASE)


@pytest.mark.parametrize(
    "sentence", ["there is no run", "the lock is no longer held", "besides", "it takes precedence over it", "go online"]
)
def test_plain_sentences_are_left_alone(sentence):
    assert not list(_in_prose([(1, sentence)]))


def test_strings_comments_docstrings_and_names_are_read_with_their_line(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""One line.\n\nA torn\nfile."""\n'  # line 3
        'message = f"{name} goes " "on"\n'  # line 5
        "# Results are taken\n# over here.\n"  # line 6
        "def come_back(): ...\n"  # line 8
        "told = 1\n"  # line 9
    )
    lines = [int(finding.split(":")[1]) for finding in findings(module)]
    assert lines == [3, 5, 6, 8, 9]


def test_documents_are_read_across_lines_and_comment_signs(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("key: 1\n# The run goes\n# on.\n")
    assert findings(recipe) == ["recipe.yaml:2: 'goes on' -> continue, resume"]


def test_recorded_output_is_left_alone_and_keeps_the_lines_after_it(tmp_path):
    results = tmp_path / "RESULTS.md"
    results.write_text("<!-- begin run -->\nas it said\n<!-- end run -->\nThe run goes on.\n")
    assert findings(results) == ["RESULTS.md:4: 'goes on' -> continue, resume"]
