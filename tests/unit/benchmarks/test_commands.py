import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from app.core.errors import ConfigurationError, VLibraryError
from app.core.vectors.file import decode_vector_file
from app.method.backbone.loading import Backbone
from benchmarks import (
    beside_training,
    cold_vector,
    engine,
    memory,
    overload,
    peers,
    prompts,
    rest,
    retrieval,
    steering,
    training,
)
from benchmarks.figures.adapters import adapter_figures
from benchmarks.figures.cancelling import cancel_figures
from benchmarks.figures.continuous import continuous_figures
from benchmarks.setting.backbones import load, without_end
from benchmarks.setting.requests import (
    from_features,
    from_pixels,
    image_prompts,
    one_by_one,
    random_shifts,
    require_equal,
    running_engine,
    through_engine,
)
from benchmarks.setting.service import bodies, vector_file
from tests.fakes.models.backbones import tiny_backbone

CONDITIONS = {"script", "rows", "clock", "processor", "threads", "torch", "transformers"}
MODEL = {"model", "architecture", "parameters", "device", "dtype", "attention"}
POCKET = ("--backbone", "pocket", "--json")
COMMANDS: dict[str, Callable[..., None]] = {
    "training": training.training,
    "prompts": prompts.prompts,
    "engine": engine.engine,
    "steering": steering.steering,
    "peers": peers.peers,
    "cold_vector": cold_vector.cold_vector,
    "rest": rest.rest,
    "overload": overload.overload,
    "retrieval": retrieval.retrieval,
    "memory": memory.memory,
    "beside_training": beside_training.beside_training,
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return without_end(tiny_backbone())


def run(name: str, *arguments: str) -> Result:
    command = typer.Typer()
    command.command()(COMMANDS[name])
    return CliRunner().invoke(command, arguments)


def facts_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    text = result.stdout
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def test_every_benchmark_explains_itself() -> None:
    for name, command in COMMANDS.items():
        assert run(name, "--help").exit_code == 0
        assert (command.__doc__ or "").startswith("P")


@pytest.mark.parametrize(
    "arguments",
    [("engine", "--tokens", "1"), ("steering", "--rounds", "0"), ("overload", "--times", "1000")],
)
def test_sizes_out_of_bounds_are_refused(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_engine_tells_its_figures_and_conditions() -> None:
    sizes = ("--rounds", "1", "--tokens", "3", "--rows", "2", "--cancels", "3")
    found = facts_of(run("engine", *sizes, *POCKET))
    assert set(found) >= {"P3", "P3_short", "P3_features", "P11", *CONDITIONS, *MODEL}
    assert found["identical"] is True
    assert found["rows"] == 2
    assert found["script"] == "python -m benchmarks.engine"
    assert set(found["median_ms"]["P3"]) == {
        "sequential pixels", "engine pixels", "sequential features", "engine features",
    }  # fmt: skip
    assert found["P3"] > 0


def test_steering_tells_its_figures_and_conditions() -> None:
    sizes = ("--rounds", "1", "--tokens", "2", "--rows", "2", "--blocks", "2", "--steps", "2")
    found = facts_of(run("steering", *sizes, *POCKET))
    assert set(found) >= {"P1", "P1_quartiles", "P2", "P2_quartiles", *CONDITIONS, *MODEL}
    assert set(found["P2_step_median_ms"]) == {"steered", "unhooked"}


def test_prompts_tells_the_ratio_and_its_conditions() -> None:
    found = facts_of(run("prompts", "--items", "2", "--rounds", "1", "--json"))
    assert set(found["ms_per_query"]) == {"icl", "m2iv"}
    assert found["P6"]
    assert "P6" in run("prompts", "--items", "1", "--rounds", "1").stdout


def test_cold_vector_tells_its_figures_and_conditions() -> None:
    found = facts_of(run("cold_vector", "--rounds", "1", "--rows", "2", "--requests", "2", *POCKET))
    assert set(found) >= {"P9", "P9_others", *CONDITIONS, *MODEL}
    assert set(found["P9_gap_p95_ms"]) == {"cold", "warm", "alone"}


def test_peers_without_peft_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    result = run("peers")
    assert isinstance(result.exception, ConfigurationError)
    assert "vlibrary[bench]" in result.exception.message


def test_continuous_batching_writes_what_the_engine_writes(backbone: Backbone) -> None:
    found = continuous_figures(backbone, num_rows=3, num_tokens=4, rounds=1)
    assert found["P4_identical"] is True
    assert {name.split(",")[0] for name in found["P4_median_ms"]} == {
        "engine",
        "continuous batching",
    }
    assert set(found["P4_sides"]) <= set(found["P4_median_ms"])


@pytest.mark.benchmark
def test_adapters_of_a_mixed_batch_are_compared(backbone: Backbone) -> None:
    found = adapter_figures(backbone, num_rows=2, num_blocks=1, num_steps=2, rank=2)
    assert set(found["step_over_plain"]) == set(found["step_median_ms"]) - {"plain"}


def test_both_sides_write_full_answers_that_the_shifts_changed(backbone: Backbone) -> None:
    prompts = image_prompts(backbone, 3)
    steered = from_pixels(backbone, prompts, random_shifts(backbone, 3))
    plain = from_pixels(backbone, prompts, [None] * 3)
    kept = from_features(backbone, prompts, random_shifts(backbone, 3))
    with one_by_one(backbone) as answer:
        wanted = answer(steered, 12)
        assert [len(ids) for ids in wanted] == [12, 12, 12]
        assert answer(kept, 12) == wanted
        assert answer(plain, 12) != wanted
    with running_engine(backbone, max_rows=2) as engine:
        assert through_engine(engine, steered, num_tokens=12) == wanted


def test_different_tokens_are_no_figure() -> None:
    require_equal([(1, 2)], [(1, 2)], what="P3")
    with pytest.raises(VLibraryError, match="1 of 2 answers"):
        require_equal([(1,), (2,)], [(1,), (3,)], what="P3")


def test_hooks_are_gone_after_every_side(backbone: Backbone) -> None:
    def num_hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for module in backbone.model.modules()
        )

    before = num_hooks()
    with one_by_one(backbone):
        assert num_hooks() > before
    with running_engine(backbone, max_rows=1) as engine:
        assert num_hooks() > before
        engine.close()
        assert num_hooks() == before
    assert num_hooks() == before


def test_a_cancel_is_counted_until_the_waiting_request_has_a_token(backbone: Backbone) -> None:
    found = cancel_figures(backbone, num_rows=2, num_cancels=4)
    assert found["P11"] >= 1
    assert found["P11_steps_most"] >= found["P11"]


def test_the_random_backbone_is_large_repeatable_and_answers_pictures() -> None:
    one = load("random-30m", device="cpu", dtype="float32")
    num_parameters = sum(parameter.numel() for parameter in one.model.parameters())
    assert 25e6 < num_parameters < 35e6
    other = load("random-30m", device="cpu", dtype="float32")
    assert one.description.fingerprint == other.description.fingerprint
    endless = without_end(one)
    asked = from_pixels(endless, image_prompts(endless, 2), [None, None])
    with one_by_one(endless) as answer:
        first, second = answer(asked, 6)
    assert first != second
    ids = asked[0].inputs["input_ids"]
    moved = torch.cat([ids[:, :1], ids[:, 1:].roll(1, dims=1)], dim=1)
    texts = [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in (ids, moved)]
    logits = [one.model(**text).logits[0, -1] for text in texts]
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_without_end_leaves_the_backbone_as_it_was() -> None:
    whole = tiny_backbone()
    assert whole.eos_token_ids
    assert without_end(whole).eos_token_ids == ()
    assert without_end(whole).model is whole.model


def test_requests_and_vectors_of_a_service_are_what_it_takes() -> None:
    described = {"num_layers": 2, "hidden_size": 4, "fingerprint": "0" * 64}
    tensors, metadata = decode_vector_file(vector_file(described), num_layers=2, hidden_size=4)
    assert metadata["backbone"] == "0" * 64
    assert tensors.norms()["mlp"][0] > 0
    assert vector_file(described, seed=1) != vector_file(described)
    first, second = (json.loads(body) for body in bodies(2, max_tokens=3))
    assert first["images"] != second["images"]
    assert first["max_tokens"] == 3
