"""The pages tell of every route, every code of an error and every metric."""

import re
from pathlib import Path

from fastapi import FastAPI

from app.api.http.errors import CODE_OF_STATUS, STATUS_OF_CODE

ROOT = Path(__file__).resolve().parents[3]
# Of a training or of a command, and no status of an answer.
NO_ANSWERS = {"cancelled", "configuration"}


def cells(page: str, header: str) -> list[list[str]]:
    """The rows of the tables of a page that begin so, cell by cell."""
    found = []
    for table in (ROOT / "docs" / page).read_text(encoding="utf-8").split(header)[1:]:
        lines = table.partition("\n\n")[0].splitlines()[2:]
        found += [line.strip("| ").split(" | ") for line in lines]
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def nameless(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_the_page_of_the_api_tells_of_every_route(api: FastAPI) -> None:
    told: set[tuple[str, str]] = set()
    for routes, _ in cells("api.md", "| route | what |"):
        methods = ["GET"]
        for text in quoted(routes):
            *named, path = text.split()
            methods = named[0].split("/") if named else methods
            for one in {path.replace("[", "").replace("]", ""), re.sub(r"\[.*\]", "", path)}:
                told |= {(method, nameless(one)) for method in methods}
    documented = {
        (method.upper(), nameless(path))
        for path, item in api.openapi()["paths"].items()
        for method in item
    }
    assert documented <= told
    assert {path for _, path in told} == {path for _, path in documented}


def test_the_page_of_the_api_tells_of_every_code_with_its_status() -> None:
    told = {
        (int(status), code)
        for status, codes in cells("api.md", "| status | `code` |")
        for code in quoted(codes)
    }
    made = {(status, code) for code, status in STATUS_OF_CODE.items() if code not in NO_ANSWERS}
    assert told == made | set(CODE_OF_STATUS.items())


def test_the_page_of_operations_tells_of_every_metric() -> None:
    made = set()
    for path in ("api/http/metrics.py", "api/routes/scraping.py", "worker/serving/metrics.py"):
        made |= set(re.findall(r'"vlibrary_(\w+)"', (ROOT / "app" / path).read_text()))
    assembly = (ROOT / "app" / "worker" / "assembly.py").read_text()
    made |= set(re.findall(r'(?:gauge\("|"vlibrary_)(\w+)"', assembly))
    told = set()
    for part in ("worker", "api"):
        for metrics, _, _ in cells("operations.md", f"| {part} | type | meaning |"):
            whole: list[str] = []
            for text in quoted(metrics):
                name = text.partition("{")[0].removeprefix("vlibrary").strip("_").split("_")
                # `_bytes` behind another one stands for the other end of it.
                whole = name if text.startswith("vlibrary") else whole[: -len(name)] + name
                told.add("_".join(whole).removesuffix("_total"))
    assert told == made
