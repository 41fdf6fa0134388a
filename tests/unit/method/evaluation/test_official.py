import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import InvalidDatasetError, InvalidInputError, NotFoundError
from app.method.backbone.examples import Example
from app.method.evaluation.metrics import SCORERS, find_scorer, vqa_accuracy
from app.method.evaluation.tasks.loading import OFFICIAL, load_examples
from app.method.evaluation.tasks.vl_icl import SCORERS as SCORERS_OF_TASKS
from app.method.evaluation.tasks.vl_icl import load_episodes
from tests.fakes.files import official


def test_vqav2_joins_its_two_files_by_question_not_by_place(tmp_path: Path) -> None:
    official.vqa_files(tmp_path)
    second, first = load_examples(f"vqav2:{tmp_path}", split="val")
    assert (first.question, first.id, first.answer) == ("What is this?", "42000", "net")
    assert (second.question, second.id, second.answer) == ("How many?", "42001", "2")
    assert len(first.answers) == 10
    assert first.image_id == second.image_id == "val2014/COCO_val2014_000000000042.jpg"
    assert OFFICIAL["vqav2"].scorer == "vqa"


def test_vqa_accuracy_leaves_annotators_out_by_place() -> None:
    # Seven of ten: whoever is left out, at least three others agree.
    answers = ["net"] * 7 + ["racket"] * 3
    assert vqa_accuracy("net", answers) == pytest.approx(1.0)
    # Left out one of three: two others; left out one of the seven: three others.
    assert vqa_accuracy("racket", answers) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("ball", answers) == 0.0


def test_leaving_out_equal_answers_would_score_a_majority_oracle_far_too_low() -> None:
    answers = ["unsuitable"] * 4 + ["can", "soup", "tin", "food", "box", "jar"]
    wrong = sum(
        min(1.0, sum(other == "unsuitable" for other in answers if other != left) / 3)
        for left in answers
    )
    assert vqa_accuracy("unsuitable", answers) == pytest.approx(1.0)
    assert wrong / 10 == pytest.approx(0.6)


def test_okvqa_has_stemmed_answers_and_a_stemming_metric(tmp_path: Path) -> None:
    official.vqa_files(tmp_path, prefix="", raw=True)
    second, first = load_examples(f"okvqa:{tmp_path}", split="val")
    assert first.answers[0] == "net"
    assert second.answer == "2"
    score = find_scorer(OFFICIAL["okvqa"].scorer)
    stemmed = ["ride", "ride", "ride", "surf"] + ["ride"] * 6
    assert score("riding", stemmed) == pytest.approx(1.0)
    assert vqa_accuracy("riding", stemmed) == 0.0
    assert score("surfing", stemmed) == pytest.approx((9 * 1 / 3 + 0) / 10)
    assert score("Two dogs.", ["2 dog"] * 10) == pytest.approx(1.0)


@pytest.mark.parametrize("in_folder", [False, True])
def test_vizwiz_keeps_what_cannot_be_answered(tmp_path: Path, *, in_folder: bool) -> None:
    official.vizwiz_files(tmp_path, in_folder=in_folder)
    seen, unseen = load_examples(f"vizwiz:{tmp_path}", split="val")
    assert seen.answer == "soup"
    assert seen.answers.count("can") == 5
    assert unseen.answer == "unsuitable"
    assert unseen.image_id == "val/VizWiz_val_00000001.jpg"


def test_copies_of_vizwiz_in_the_layout_of_vqa_have_the_same_items(tmp_path: Path) -> None:
    official.vizwiz_as_vqa(tmp_path)
    unseen, seen = load_examples(f"vizwiz:{tmp_path}", split="val")
    assert (seen.answer, seen.answers.count("can")) == ("soup", 5)
    assert (unseen.answer, unseen.image_id) == ("unsuitable", "val/VizWiz_val_00000001.jpg")


def test_gqa_keeps_ids_as_text_and_compares_whole_answers(tmp_path: Path) -> None:
    official.gqa_files(tmp_path)
    items = load_examples(f"gqa:{tmp_path}", split="testdev_balanced")
    assert [(item.id, item.answer, item.image_id) for item in items] == [
        ("201307251", "no", "images/n161313.jpg"),
        ("05515938", "pipe", "images/2405722.jpg"),
    ]
    score = find_scorer(OFFICIAL["gqa"].scorer)
    assert [score(said, ["pipe"]) for said in ("Pipe ", "pipe.", "a pipe")] == [1.0, 0.0, 0.0]


def test_aokvqa_leaves_difficult_items_out_of_direct_answers_alone(tmp_path: Path) -> None:
    official.aokvqa_files(tmp_path)
    choices = load_examples(f"aokvqa-mc:{tmp_path}", split="val")
    direct = load_examples(f"aokvqa-da:{tmp_path}", split="val")
    assert [item.id for item in choices] == ["22easy", "22hard"]
    assert [item.id for item in direct] == ["22easy"]
    assert choices[0].answers == ("waiting",)
    assert choices[0].question == ("What is he doing? Choices: running, waiting, eating, flying.")
    assert direct[0].image_id == "val2017/000000299207.jpg"


def test_aokvqa_counts_matches_and_leaves_nobody_out(tmp_path: Path) -> None:
    official.aokvqa_files(tmp_path)
    (item,) = load_examples(f"aokvqa-da:{tmp_path}", split="val")
    score = find_scorer(OFFICIAL["aokvqa-da"].scorer)
    assert score("waiting", item.answers) == pytest.approx(1.0)
    assert score("waiting", ["waiting", "waiting", "idle"]) == pytest.approx(2 / 3)
    # Leave-one-out would give (2 * 1 / 3 + 1 * 2 / 3) / 3.
    assert score("idle", ["waiting", "waiting", "idle"]) == pytest.approx(1 / 3)


def test_aokvqa_test_questions_have_no_answers_and_say_so(tmp_path: Path) -> None:
    official.aokvqa_files(tmp_path)
    with pytest.raises(InvalidDatasetError, match="Entry 0 has another layout: KeyError"):
        load_examples(f"aokvqa-mc:{tmp_path}", split="test")


def test_cvqa_halves_share_no_picture_and_are_all_of_it(tmp_path: Path) -> None:
    official.cvqa_files(tmp_path)
    parts = {
        split: load_examples(f"cvqa:{tmp_path}", split=split)
        for split in ("support", "eval", "test")
    }
    shown = {split: {item.image_id for item in items} for split, items in parts.items()}
    assert not shown["support"] & shown["eval"]
    assert len(parts["support"]) + len(parts["eval"]) == len(parts["test"]) == 12
    assert len(shown["test"]) == 6
    item = parts["test"][0]
    assert item.question == "What is this? Choices: tea, milk, ugali, rice."
    assert item.answers == ("ugali",)
    assert [one.id for one in load_examples(f"cvqa:{tmp_path}")] == [
        one.id for one in parts["support"]
    ]


def test_cvqa_refuses_other_parts_and_labels_that_are_hidden(tmp_path: Path) -> None:
    official.cvqa_files(tmp_path, label=-1)
    with pytest.raises(InvalidDatasetError, match="wanted a label from 0 to 3, found -1"):
        load_examples(f"cvqa:{tmp_path}", split="test")
    with pytest.raises(InvalidInputError, match=r"wanted support, eval, test, found train"):
        load_examples(f"cvqa:{tmp_path}", split="train")
    with pytest.raises(NotFoundError, match=r"test-\*\.parquet"):
        load_examples(f"cvqa:{tmp_path / 'none'}", split="test")


def test_of_cvqa_the_pictures_that_are_asked_take_room_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.write, 0

    def counted(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        return write(descriptor, data)

    official.cvqa_files(tmp_path, count=200)
    monkeypatch.setattr(os, "write", counted)
    chosen = load_examples(f"cvqa:{tmp_path}", split="test", limit=3, seed=1)
    assert written == sum(len(item.pictures[0].data) for item in chosen)
    assert len({item.id for item in chosen}) == 3


def test_rows_of_cvqa_without_a_picture_and_files_that_are_none_are_told(tmp_path: Path) -> None:
    official.cvqa_files(tmp_path, pictures=[b"1", b"2", None, b"4"])
    with pytest.raises(InvalidDatasetError, match="picture in every row, found none in id_2"):
        load_examples(f"cvqa:{tmp_path}", split="test")
    (tmp_path / "data" / "test-00000-of-00002.parquet").write_bytes(b"version https://git-lfs")
    with pytest.raises(InvalidDatasetError, match="is damaged or no Parquet file"):
        load_examples(f"cvqa:{tmp_path}")
    pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "data" / "test-00000-of-00002.parquet")
    with pytest.raises(InvalidDatasetError, match="another layout: wanted the columns image, ID"):
        load_examples(f"cvqa:{tmp_path}")


def test_pictures_in_files_of_their_own_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    official.vqa_files(tmp_path)
    monkeypatch.setattr(os, "write", full)
    first, second = load_examples(f"vqav2:{tmp_path}", split="val")
    assert first.image is second.image
    assert first.pictures[0].data == (tmp_path / first.image_id).read_bytes()


def test_open_mi_binds_the_query_class_and_one_other_in_turn(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    (episode,) = load_episodes(tmp_path, "open_mi", shots=2)
    names = [item.answer for item in episode.context]
    assert len(names) == 4
    assert names[:2] == names[2:]
    assert "dax" in names
    assert len(set(names)) == 2
    assert episode.query.question == "This is a"
    assert [item.image_id[-5:] for item in episode.context] == ["0.jpg", "0.jpg", "1.jpg", "1.jpg"]


def test_an_operator_takes_its_own_answer_of_three(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    (episode,) = load_episodes(tmp_path, "operator_induction", shots=3)
    for item in episode.context:
        assert int(item.answer) == int(item.id and item.image_id.split("/")[1][0]) - 2
    assert episode.query.answer == "-1"
    assert len({item.image_id for item in episode.context}) == 3


def test_an_operator_between_two_pictures_shows_both_in_their_order(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    (episode,) = load_episodes(tmp_path, "operator_induction_interleaved", shots=3)
    for item in (*episode.context, episode.query):
        first, second = (int(name[-5]) for name in item.image_id.split(" "))
        assert int(item.answer) == first * second
        assert [picture.data for picture in item.pictures] == [
            (tmp_path / name).read_bytes() for name in item.image_id.split(" ")
        ]
    assert len({item.image_id for item in episode.context}) == 3


def test_a_match_is_shown_with_a_pair_of_others_behind_it(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    (episode,) = load_episodes(tmp_path, "matching_mi", shots=2)
    assert [item.answer for item in episode.context] == ["Yes", "No", "Yes", "No"]
    same, other = episode.context[:2]
    assert same.pictures[0].digest == same.pictures[1].digest == other.pictures[0].digest
    assert other.pictures[1].digest != other.pictures[0].digest
    assert episode.query.answer == "No"
    (bare,) = load_episodes(tmp_path, "matching_mi", shots=0)
    assert bare.context == ()


def test_a_match_counts_the_yes_of_the_first_sentence_and_whatever_has_none() -> None:
    score = SCORERS[SCORERS_OF_TASKS["matching_mi"]]
    said = ("Yes.", "yes, they do", "No", "perhaps", "No. Yes", "eyes")
    assert [score(one, ["Yes"]) for one in said] == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert [score(one, ["No"]) for one in said] == [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_tasks_of_one_picture_and_of_two_refuse_another_number(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    for task, image in (
        ("operator_induction_interleaved", ["a.jpg"]),
        ("operator_induction", ["a.jpg", "b.jpg"]),
    ):
        query = {"image": image, "question": "q", "answer": 1, "operator": "+"}
        official.write(tmp_path / task / "query.json", [query])
        with pytest.raises(InvalidDatasetError, match=f"found {len(image)}"):
            load_episodes(tmp_path, task, shots=0)


def test_vl_icl_answers_are_cut_as_officially() -> None:
    match, number = SCORERS["vl-icl"], SCORERS["vl-icl-number"]
    assert match("Dax. It is small", ["dax"]) == 1.0
    assert match("dax\nblicket", ["dax"]) == 1.0
    assert match("a dax", ["dax"]) == 0.0
    # A line's end comes before a full stop, wherever it is.
    assert match("it. is\nnot", ["it"]) == 0.0
    assert number("The result is 12.", ["12"]) == 1.0
    assert number("12 or 13", ["13"]) == 0.0
    assert number("-1", ["-1"]) == 0.0
    assert number("none", ["1"]) == 0.0


def test_vl_icl_refuses_what_it_cannot_show_and_too_many_shots(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    with pytest.raises(InvalidInputError, match="found cobsat"):
        load_episodes(tmp_path, "cobsat", shots=1)
    with pytest.raises(InvalidDatasetError, match="fewer than 9"):
        load_episodes(tmp_path, "operator_induction", shots=9)
    with pytest.raises(NotFoundError, match=r"wanted query.json"):
        load_episodes(tmp_path, "clevr", shots=1)


def test_missing_files_pictures_and_wrong_layouts_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"wanted testdev_questions\.json"):
        load_examples(f"gqa:{tmp_path}", split="testdev")
    official.gqa_files(tmp_path)
    (tmp_path / "images" / "2405722.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"wanted images/2405722.jpg"):
        load_examples(f"gqa:{tmp_path}", split="testdev_balanced")
    official.write(tmp_path / "val.json", {"not": "a list"})
    with pytest.raises(InvalidDatasetError, match="wanted a list, found a dict"):
        load_examples(f"vizwiz:{tmp_path}", split="val")
    official.write(tmp_path / "val.json", b"[")
    with pytest.raises(InvalidDatasetError, match=r"val.json is no JSON"):
        load_examples(f"vizwiz:{tmp_path}", split="val")


def test_a_limit_reads_no_other_pictures(tmp_path: Path) -> None:
    official.vizwiz_files(tmp_path)
    (tmp_path / "val" / "VizWiz_val_00000001.jpg").unlink()
    found = [item.id for seed in range(8) for item in _tolerant(tmp_path, seed)]
    assert set(found) == {"VizWiz_val_00000000.jpg"}


def _tolerant(folder: Path, seed: int) -> list[Example]:
    try:
        return list(load_examples(f"vizwiz:{folder}", split="val", limit=1, seed=seed))
    except NotFoundError:
        return []
