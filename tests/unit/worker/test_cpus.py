from pathlib import Path

import pytest
import torch

from app.worker.cpus import available_cpus, limit_threads


def write_version_1(group: Path, *, quota: str) -> None:
    (group / "cpu").mkdir()
    (group / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu" / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize(
    ("quota", "share"),
    [("max", None), ("400000", 4), ("250000", 2), ("50000", 1)],
)
def test_a_share_is_whole_processors_and_at_least_one(
    quota: str, share: int | None, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    assert available_cpus(tmp_path) == share


@pytest.mark.parametrize(("quota", "share"), [("-1", None), ("400000", 4)])
def test_a_share_of_the_older_control_groups_is_read_as_well(
    quota: str, share: int | None, tmp_path: Path
) -> None:
    write_version_1(tmp_path, quota=quota)
    assert available_cpus(tmp_path) == share


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) is None


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("quota", "num_threads"), [("200000", 2), ("800000", 3), ("max", 3)])
def test_torch_gets_no_more_threads_than_the_share_has_processors(
    quota: str, num_threads: int, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    limit_threads(tmp_path)
    assert torch.get_num_threads() == num_threads
