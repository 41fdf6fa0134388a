import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes.checkpoints.families import CHECKPOINTS
from tests.fakes.checkpoints.parts import save
from tests.fakes.servers.installation import Installation
from tests.families.plain import Plain
from vlibrary_client import Client

SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """A family's checkpoint behind `vlibrary serve`, and the same in transformers alone."""

    family: str
    folder: Path
    installation: Installation
    client: Client
    plain: Plain


@pytest.fixture(scope="package", params=list(CHECKPOINTS))
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One service a family; families come one after the other."""
    place = Path(tempfile.mkdtemp(prefix="vlibrary-families-", dir="/tmp"))
    place.chmod(0o711)
    checkpoint = save(CHECKPOINTS[request.param](), place / "a checkpoint" / request.param)
    installation = Installation(place / "data", checkpoint)
    (place / "data").mkdir(mode=0o711)
    try:
        with installation.start() as client:
            yield Served(
                family=request.param,
                folder=checkpoint,
                installation=installation,
                client=client,
                plain=Plain(checkpoint),
            )
    finally:
        installation.end()
        shutil.rmtree(place, ignore_errors=True)


def picture(seed: int, size: tuple[int, int] = (56, 56)) -> Image.Image:
    """Coloured blocks, different for every seed."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
