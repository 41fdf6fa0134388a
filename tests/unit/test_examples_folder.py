import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageChops

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "parts"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_parts", EXAMPLE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def items(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def remade(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maker, "__file__", str(folder / "make.py"))
        maker.main()
    return folder


@pytest.mark.parametrize("name", ["train", "new"])
def test_the_shipped_example_is_what_its_script_makes(name: str, remade: Path) -> None:
    assert items(remade / name) == items(EXAMPLE / name)
    for item in items(EXAMPLE / name):
        with (
            Image.open(remade / name / item["file_name"]) as made,
            Image.open(EXAMPLE / name / item["file_name"]) as shipped,
        ):
            assert ImageChops.difference(made, shipped).getbbox() is None


def test_no_picture_to_ask_about_was_learnt_from() -> None:
    seen = {
        (EXAMPLE / "train" / item["file_name"]).read_bytes() for item in items(EXAMPLE / "train")
    }
    asked = {(EXAMPLE / "new" / item["file_name"]).read_bytes() for item in items(EXAMPLE / "new")}
    assert len(seen) == 60
    assert len(asked) == 40
    assert not seen & asked


def test_every_name_is_asked_for_and_learnt_equally_often(maker: ModuleType) -> None:
    for name, times in (("train", 6), ("new", 4)):
        answers = [item["answer"] for item in items(EXAMPLE / name)]
        assert {answer: answers.count(answer) for answer in answers} == dict.fromkeys(
            maker.NAMES.values(), times
        )
