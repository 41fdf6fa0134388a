import json

import typer
from typer.testing import CliRunner

from benchmarks.retrieval import retrieval


def test_it_tells_how_long_a_search_takes_beside_its_peers_and_what_it_finds() -> None:
    command = typer.Typer()
    command.command()(retrieval)
    result = CliRunner().invoke(command, ["--keys", "600", "--rounds", "3", "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    text = result.stdout
    found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert found["recall_600"] == found["recall_filtered_600"] == 1.0
    assert found["pgvector_exact_recall_600"] == found["pgvector_exact_recall_filtered_600"] == 1.0
    assert 0 < found["pgvector_hnsw_recall_filtered_600"] <= 1
    assert found["hnsw_build_seconds_600"] >= 0
    for name in ("", "numpy_", "pgvector_exact_", "pgvector_hnsw_"):
        assert found[f"{name}p50_ms_600"] > 0
