"""Vectors leave a library as folders and repositories, and enter another one as they were."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from fastapi import FastAPI, Response
from typer.testing import CliRunner

from app.cli.app import build
from tests.fakes.servers.hub import FakeHub
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.scripted_server import VECTOR_ID, vector_json
from tests.fakes.vectors import make_vector_file
from vlibrary_client import (
    AsyncClient,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    CorruptDataError,
    InvalidVectorFileError,
    NotFoundError,
    VLibraryError,
)

runner = CliRunner()


@pytest.fixture
def stored_names() -> list[str]:
    return ["gears"]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=120.0, max_retries=0) as opened:
        opened.vectors.update("gears", description="Teeth & *axles*\n---\n# no title", tags=["a|b"])
        yield opened


def measure(client: Client) -> None:
    client.vectors.add_evaluation(
        "gears",
        dataset="easy-vqa",
        split="test",
        scorer="exact-match",
        items=50,
        accuracy=0.9,
        interval=(0.8, 0.95),
        zero_shot=0.4,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FakeHub, str]]:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    with serving(fake.app()) as endpoint:
        yield fake, endpoint
    huggingface_hub.close_session()


class TestFolders:
    def test_a_folder_brings_the_vector_back_as_it_was(
        self, client: Client, tmp_path: Path
    ) -> None:
        original = client.vectors.get("gears")
        folder = client.vectors.export("gears", tmp_path / "out")
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "vector.safetensors",
            "vector_config.json",
        ]
        config = json.loads((folder / "vector_config.json").read_text())
        assert config["backbone"]["fingerprint"] == original.backbone.fingerprint
        assert client.vectors.import_folder(folder).id == original.id
        client.vectors.delete("gears")
        again = client.vectors.import_folder(folder)
        assert (again.name, again.version, again.sha256) == ("gears", 2, original.sha256)
        assert (again.description, again.tags) == (original.description, original.tags)
        assert client.vectors.import_folder(folder, name="other").ref == "other@1"

    def test_a_folder_takes_along_what_was_measured_since(
        self, client: Client, tmp_path: Path
    ) -> None:
        measure(client)
        folder = client.vectors.export("gears", tmp_path)
        config = json.loads((folder / "vector_config.json").read_text())
        assert config["evaluations"][0]["accuracy"] == 0.9
        again = client.vectors.get(client.vectors.import_folder(folder, name="again"))
        assert [measured.accuracy for measured in again.evaluations] == [0.9]

    def test_the_card_is_front_matter_and_text(self, client: Client, tmp_path: Path) -> None:
        measure(client)
        folder = client.vectors.export("gears", tmp_path)
        card = huggingface_hub.ModelCard.load(folder / "README.md")
        assert card.data.library_name == "vlibrary"
        assert card.data.tags == ["vlibrary", "m2iv", "a|b"]
        (result,) = card.data.eval_results
        assert (result.metric_value, result.dataset_name) == (0.9, "easy-vqa")
        # What somebody wrote into a description is no front matter and no title.
        assert "Teeth &amp; \\*axles\\* \\-\\-\\- \\# no title" in card.text
        assert "| 90.0 % | 80.0 % to 95.0 % | 40.0 % |" in card.text

    def test_a_folder_that_is_no_vector_is_refused(self, client: Client, tmp_path: Path) -> None:
        with pytest.raises(InvalidVectorFileError, match=r"vector_config\.json"):
            client.vectors.import_folder(tmp_path)
        folder = client.vectors.export("gears", tmp_path)
        content = bytearray((folder / "vector.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "vector.safetensors").write_bytes(content)
        with pytest.raises(CorruptDataError):
            client.vectors.import_folder(folder)
        (folder / "vector.safetensors").unlink()
        with pytest.raises(InvalidVectorFileError, match=r"vector\.safetensors"):
            client.vectors.import_folder(folder)
        for text in ("[]", "{", '{"format_version": 2}', '{"format_version": 1, "name": 3}'):
            (folder / "vector_config.json").write_text(text)
            with pytest.raises(InvalidVectorFileError):
                client.vectors.import_folder(folder)


class TestHub:
    def test_a_repository_brings_the_vector_back(
        self, client: Client, hub: tuple[FakeHub, str]
    ) -> None:
        fake, endpoint = hub
        original = client.vectors.get("gears")
        address = client.vectors.push_to_hub(
            "gears", "me/gears", private=True, token=fake.token, endpoint=endpoint
        )
        assert address == f"{endpoint}/me/gears/commit/{fake.heads['me/gears']}"
        assert fake.private == {"me/gears"}
        stored = fake.files("me/gears")
        assert hashlib.sha256(stored["vector.safetensors"]).hexdigest() == original.sha256
        # A repository may hold more; only a vector's files are fetched.
        fake.commit("me/gears", {**stored, "pytorch_model.bin": b"x"})
        client.vectors.delete("gears")
        found = client.vectors.from_hub("me/gears", endpoint=endpoint)
        assert (found.sha256, found.tags) == (original.sha256, original.tags)
        assert sorted(fake.downloads) == ["README.md", "vector.safetensors", "vector_config.json"]
        # Pushed again, the repository is there already.
        client.vectors.push_to_hub("gears", "me/gears", token=fake.token, endpoint=endpoint)

    def test_a_revision_is_fetched_as_it_was(
        self, client: Client, hub: tuple[FakeHub, str]
    ) -> None:
        fake, endpoint = hub
        client.vectors.push_to_hub("gears", "me/gears", token=fake.token, endpoint=endpoint)
        revision = fake.heads["me/gears"]
        fake.commit("me/gears", {**fake.files("me/gears"), "vector.safetensors": b"damaged"})
        with pytest.raises(CorruptDataError):
            client.vectors.from_hub("me/gears", endpoint=endpoint)
        found = client.vectors.from_hub(
            "me/gears", name="old", revision=revision, endpoint=endpoint
        )
        assert found.ref == "old@1"

    def test_refusals_are_errors_of_the_client(
        self, client: Client, hub: tuple[FakeHub, str]
    ) -> None:
        fake, endpoint = hub
        with pytest.raises(NotFoundError):
            client.vectors.from_hub("me/none", endpoint=endpoint)
        wrong = fake.token + "x"
        with pytest.raises(VLibraryError):
            client.vectors.push_to_hub("gears", "me/gears", token=wrong, endpoint=endpoint)
        fake.create("me/empty")
        with pytest.raises(InvalidVectorFileError):
            client.vectors.from_hub("me/empty", endpoint=endpoint)
        with pytest.raises(NotFoundError):
            client.vectors.from_hub("me/empty", revision="v9", endpoint=endpoint)
        with pytest.raises(ConfigurationError):
            client.vectors.from_hub("no such name", endpoint=endpoint)
        with pytest.raises(ConnectionFailedError):
            client.vectors.from_hub("me/none", endpoint="http://127.0.0.1:9")
        with pytest.raises(ConnectionFailedError):
            client.vectors.push_to_hub("gears", "me/gears", endpoint="http://127.0.0.1:9")

    def test_what_was_fetched_before_does_not_stand_in_for_a_hub_that_is_away(
        self, client: Client, hub: tuple[FakeHub, str]
    ) -> None:
        fake, endpoint = hub
        client.vectors.push_to_hub("gears", "me/gears", token=fake.token, endpoint=endpoint)
        client.vectors.from_hub("me/gears", endpoint=endpoint)
        with pytest.raises(ConnectionFailedError):
            client.vectors.from_hub("me/gears", endpoint="http://127.0.0.1:9")

    def test_a_hub_that_is_switched_off_is_said_so(
        self,
        client: Client,
        hub: tuple[FakeHub, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises((ConfigurationError, ConnectionFailedError), match="offline"):
            client.vectors.push_to_hub("gears", "me/gears", endpoint=hub[1])


def test_the_async_client_shares_as_well(
    client: Client, url: str, hub: tuple[FakeHub, str]
) -> None:
    fake, endpoint = hub
    original = client.vectors.get("gears")

    async def share() -> None:
        async with AsyncClient(url, timeout=120.0) as asynchronous:
            vectors = asynchronous.vectors
            await vectors.push_to_hub("gears", "me/gears", token=fake.token, endpoint=endpoint)
            found = await vectors.from_hub("me/gears", endpoint=endpoint)
            assert found.id == original.id
            with tempfile.TemporaryDirectory() as folder:
                await vectors.export("gears", folder)
                assert (await vectors.import_folder(folder)).id == original.id

    asyncio.run(share())
    assert client.vectors.get("gears").version == 1


class TestCommands:
    def run(self, *arguments: str, code: int = 0) -> str:
        result = runner.invoke(build(), arguments)
        assert result.exit_code == code, result.output
        return result.output

    def test_vectors_are_exported_and_imported(
        self, client: Client, url: str, tmp_path: Path
    ) -> None:
        digest = client.vectors.get("gears").sha256
        output = self.run("export", "gears@1", "none", "--to", str(tmp_path), "--url", url, code=1)
        assert "none: There is no vector none" in output
        folder = tmp_path / "gears@1"
        client.vectors.delete("gears@1")
        self.run("import", str(folder), "--url", url)
        assert client.vectors.get("gears").sha256 == digest
        file = folder / "vector.safetensors"
        self.run("import", str(file), "--name", "alone", "--url", url)
        assert client.vectors.get("alone").sha256 == digest
        assert "--name" in self.run("import", str(file), "--url", url, code=2)

    @pytest.mark.parametrize("to", ["out", "gguf"])
    def test_a_server_leads_no_export_out_of_its_folder(
        self, to: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, content = FastAPI(), make_vector_file()
        etag = {"etag": f'"{hashlib.sha256(content).hexdigest()}"'}
        for ref in ("gears", VECTOR_ID):
            app.add_api_route(f"/vectors/{ref}", lambda: vector_json(name="../../elsewhere"))
        app.add_api_route(f"/vectors/{VECTOR_ID}/file", lambda: Response(content, headers=etag))
        (tmp_path / "work" / "here").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "work" / "here")
        with serving(app) as address:
            output = self.run("export", "gears", "--to", to, "--url", address, code=1)
        assert "found '../../elsewhere'" in output
        assert [path.name for path in tmp_path.rglob("*")] == ["work", "here"]

    def test_vectors_are_pushed_and_pulled(
        self, client: Client, url: str, hub: tuple[FakeHub, str]
    ) -> None:
        fake, endpoint = hub
        shared = ("me/gears", "--token", fake.token, "--endpoint", endpoint, "--url", url)
        assert f"{endpoint}/me/gears/commit/" in self.run("push", "gears", *shared)
        output = self.run("pull", *shared, "--name", "again", "--json")
        assert '"name": "again"' in output
        assert client.vectors.get("again").sha256 == client.vectors.get("gears").sha256
