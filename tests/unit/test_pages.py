"""What the pages name is there: links, files, targets of make, settings, options, the SDK."""

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import vlibrary_client
from app.cli.app import build
from app.cli.options import _OF_OTHERS
from app.core.settings import Settings
from app.method.evaluation.metrics import SCORERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "app/assets/*/README.md")
    for page in ROOT.glob(pattern)
)
FOLDERS = (
    *("app/", "benchmarks/", "charts/", "docker/", "docs/", "examples/", "migrations/"),
    *("requirements/", "tests/", "tools/", "vlibrary_client/"),
)
# Variables of the SDK, and of how tests are run.
BESIDE_SETTINGS = _OF_OTHERS | {"cases", "fuzz_cases", "kill_cycles"}

COMMAND = typer.main.get_command(build())

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def slug(heading: str) -> str:
    """As GitHub calls a heading's place."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def outside_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def quoted(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`", outside_code(text))


@every_page
def test_every_link_leads_to_a_place(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_code(page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, place = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(slug, headings), link


@every_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    modules = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    for text in quoted(page.read_text(encoding="utf-8")):
        name = text.partition("::")[0]
        if re.fullmatch(r"[\w./-]+", name) and name.startswith(FOLDERS):
            assert (ROOT / name).exists(), text
        elif re.fullmatch(r"\w+\.py", name):
            assert name in modules, text


@every_page
def test_every_target_of_make_is_there(page: Path) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for text in quoted(page.read_text(encoding="utf-8")):
        if text.startswith("make "):
            assert text.split()[1] in targets, text


@every_page
def test_every_variable_is_a_setting(page: Path) -> None:
    names = re.findall(r"\bVLIBRARY_([A-Z_]*[A-Z])\b", page.read_text(encoding="utf-8"))
    assert {name.lower() for name in names} <= Settings.model_fields.keys() | BESIDE_SETTINGS


def commands(text: str) -> Iterator[list[str]]:
    """The words behind `vlibrary` of every command in blocks and in running text."""
    blocks = re.findall(r"^```(?:console|sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *quoted(text)]
    for line in lines:
        if found := re.match(r"(?:[A-Z_]+=\S+ )*vlibrary (.*)", line):
            yield shlex.split(found[1].replace("\\|", "|"), comments=True)


def options_of(words: list[str]) -> Iterator[tuple[str, set[str]]]:
    """Every option among the words, with those that the command has."""
    command: Any = COMMAND
    while words and not words[0].startswith("-") and (within := getattr(command, "commands", None)):
        names, *words = words
        # `keys create|list` names two.
        command, *_ = [within[name] for name in names.split("|")]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    known.add("--help")
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    yield from ((option, known) for option in given)


@every_page
def test_every_command_has_the_options_that_are_given(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        for option, known in options_of(words):
            assert option in known, words


def test_the_page_of_data_sets_tells_of_every_scorer() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    told = page.partition("unless `--scorer` says otherwise:")[2].partition(".")[0]
    assert quoted(told) == list(SCORERS)


def chain(node: ast.AST) -> list[str]:
    """`client.vectors.list` as its names; nothing where it does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    before = chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*before, node.attr] if before and isinstance(node, ast.Attribute) else []


@every_page
def test_every_method_of_the_sdk_that_is_called_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        names = [chain(node) for node in ast.walk(ast.parse(block))]
        is_ours = "openai" not in block and "litellm" not in block
        with vlibrary_client.Client("http://127.0.0.1:9") as client:
            for _, *path in (one for one in names if one[:1] == ["client"] and is_ours):
                assert functools.reduce(getattr, path, client) is not None, path
        for wanted in re.findall(r"^from vlibrary_client import (.*)$", block, re.MULTILINE):
            for name in wanted.split(", "):
                assert hasattr(vlibrary_client, name), name
