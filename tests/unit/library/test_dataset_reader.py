import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from app.core.errors import InvalidDatasetError, TooLargeError
from app.library import datasets
from app.library.datasets import convert_upload
from tests.fakes.files.uploads import LIMITS, convert, refused, rows, unfolding, verdict, write
from tests.fakes.waiting import SECONDS, until, wait_until

SLOW = """
import os, pathlib, time
pathlib.Path({path!r}).write_text(str(os.getpid()))
time.sleep(600)
"""


def test_a_footer_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    data = path.read_bytes()
    path.write_bytes(data[:-8] + (2**31).to_bytes(4, "little") + b"PAR1")
    assert "footer" in refused(path)


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    data = write(tmp_path, rows(20), compression="snappy").read_bytes()
    path = tmp_path / "damaged.parquet"
    verdicts: list[str] = []
    for position in range(0, len(data), max(1, len(data) // 150)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        found = verdict(path)
        verdicts.append(found.get("refused") or str(found["report"]["num_items"]))
    assert any("damaged" in verdict for verdict in verdicts)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path, rows(3)).read_bytes()
    path = tmp_path / "short.parquet"
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        refused(path)


def test_a_small_file_that_unfolds_without_end_is_refused_within_its_memory(tmp_path: Path) -> None:
    # One value of 10 MB, repeated by reference: sixteen rows would be 160 MB.
    value = pa.array([b"\0" * 10_000_000], pa.binary())
    blobs = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), value)
    image = pa.StructArray.from_arrays([blobs, pa.nulls(64, pa.string())], ["bytes", "path"])
    texts = pa.array(["x"] * 64)
    path = tmp_path / "bomb.parquet"
    table = pa.Table.from_arrays([image, texts, texts], names=["image", "question", "answer"])
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 20_000
    with pytest.raises(InvalidDatasetError, match="memory"):
        convert(path, memory_bytes=100_000_000)


def test_a_small_file_that_unfolds_on_the_disk_is_refused(tmp_path: Path) -> None:
    path = unfolding(tmp_path, side=600, count=64)
    assert path.stat().st_size < 1_500_000
    with pytest.raises(TooLargeError, match="8000000 bytes"):
        convert(path, most_bytes=8_000_000)
    assert path.with_name("stored.parquet").stat().st_size < 16_000_000
    convert(path, most_bytes=200_000_000)


def test_a_reader_that_crashes_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "crash.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(datasets, "CHECK_SCRIPT", (str(script),))
    with capture_logs() as logs, pytest.raises(InvalidDatasetError, match="limits"):
        convert(write(tmp_path, rows()))
    assert [line["status"] for line in logs] == [-signal.SIGSEGV]


def test_a_file_that_takes_for_ever_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(datasets, "CHECK_SCRIPT", (str(script),))
    monkeypatch.setattr(datasets, "CHECK_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(InvalidDatasetError, match="too long"):
        convert(write(tmp_path, rows()))


@pytest.mark.anyio
async def test_the_reader_ends_with_who_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, started = tmp_path / "slow.py", tmp_path / "pid"
    script.write_text(SLOW.format(path=str(started)))
    monkeypatch.setattr(datasets, "CHECK_SCRIPT", (str(script),))
    waiting = asyncio.create_task(
        convert_upload(write(tmp_path, rows()), tmp_path / "stored.parquet", limits=LIMITS)
    )
    await until(lambda: started.exists() and bool(started.read_text()))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_readers_that_take_long_hold_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, begun = tmp_path / "slow.py", tmp_path / "begun"
    begun.mkdir()
    script.write_text(
        "import os, pathlib, time\n"
        f"(pathlib.Path({str(begun)!r}) / str(os.getpid())).touch()\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(datasets, "CHECK_SCRIPT", (str(script),))
    source = write(tmp_path, rows())

    async def work_beside_readers() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        reading = [
            asyncio.create_task(convert_upload(source, tmp_path / f"{number}", limits=LIMITS))
            for number in range(3)
        ]
        await until(lambda: len(list(begun.iterdir())) == len(reading))
        found = await asyncio.wait_for(asyncio.to_thread(lambda: 1), SECONDS)
        for one in reading:
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        return found

    assert asyncio.run(work_beside_readers()) == 1


def test_the_reader_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    # An endless file, as far as the reader gets to know.
    fifo = tmp_path / "endless"
    os.mkfifo(fifo)
    script = (
        "import asyncio, sys, pathlib\n"
        "from app.core.pictures import PictureLimits\n"
        "from app.core.settings import Settings\n"
        "from app.library.datasets import convert_upload\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "limits = PictureLimits.of(Settings())\n"
        "asyncio.run(convert_upload(path, path.with_name('out'), limits=limits))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(fifo)])  # noqa: S603 - our own
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    wait_until(lambda: bool(children.read_text().split()))
    (reader,) = map(int, children.read_text().split())
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(reader))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
