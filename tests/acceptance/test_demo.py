import json
import os
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from app.cli.app import build
from tests.fakes.servers.installation import processes_about
from tests.fakes.waiting import wait_until


def test_the_demo_trains_finds_steers_and_leaves_nothing_running(tmp_path: Path) -> None:
    data_dir = Path(tempfile.mkdtemp(prefix="vlibrary-demo-test-", dir="/tmp"))
    data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    options = ["--items", "300", "--questions", "20", "--output", str(tmp_path)]
    result = CliRunner().invoke(build(), ["demo", *options, "--json", "--data-dir", str(data_dir)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "demo.json").read_text())
    assert json.loads(result.stdout) == found
    assert "Asking 20 test questions" in result.stderr
    assert found["questions"] == 20
    assert found["retrieved"] is True
    assert 0.8 <= found["retrieved_share"] <= 1
    assert found["abstained_on_unrelated"] is True
    assert found["prompt_tokens"]["icl"] > 8 * found["prompt_tokens"]["m2iv"]
    for name in ("zero_shot", "nearest_copy", "icl", "icl_balanced", "knn_icl", "m2iv"):
        assert 0 <= found[name]["low"] <= found[name]["accuracy"] <= found[name]["high"] <= 1
    assert len(found["vector_sha256"]) == 64
    wait_until(lambda: not processes_about(data_dir))
