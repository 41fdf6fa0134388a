"""Every setting of a process, read once from `VLIBRARY_*`.

The defaults run everything on one laptop: a bundled backbone, an own Postgres, local files.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import InvalidInputError
from app.core.folders import default_data_dir
from app.core.identifiers import VectorReference

MEBIBYTE: Final = 1024 * 1024
OBJECT_STORE_SCHEMES: Final = frozenset({"file", "s3", "gs", "memory"})
MAX_POLICY_VECTORS: Final = 8
MAX_STRENGTH: Final = 10.0

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
WorkerRole: TypeAlias = Literal["serve", "train", "both"]


class PolicyVector(BaseModel):
    """A stored vector that every answer is steered by, and how strongly."""

    model_config = ConfigDict(frozen=True)

    ref: str
    strength: float = Field(default=1.0, ge=-MAX_STRENGTH, le=MAX_STRENGTH)

    @field_validator("ref")
    @classmethod
    def _check_ref(cls, value: str) -> str:
        try:
            VectorReference.parse(value)
        except InvalidInputError as error:
            raise ValueError(error.message) from None
        return value


class Settings(BaseSettings):
    """Settings of one process; frozen, and refused at start when they contradict each other."""

    model_config = SettingsConfigDict(
        env_prefix="VLIBRARY_",
        # Compose files and charts set to nothing what they leave to the default.
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    data_dir: Path = Field(default_factory=default_data_dir, description="Folder of all state.")
    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("VLIBRARY_DATABASE_URL", "DATABASE_URL"),
        description="An own Postgres; without it one is started below data_dir.",
    )
    pg_bin: Path | None = Field(default=None, description="Folder with initdb and postgres.")
    object_store: str | None = Field(
        default=None,
        description="file://, s3:// or gs:// URL; the folder data_dir/objects if unset.",
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 8000
    require_keys: bool | None = Field(
        default=None,
        description="Whether every request needs a key; unset, only an api that others can reach.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names that are answered, such as `*.example.com`."
    )
    worker_secret: SecretStr | None = Field(
        default=None, description="What the api and its workers know each other by."
    )
    workers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Worker URLs, separated by commas; none means an embedded worker."
    )
    worker_host: str = Field(default="127.0.0.1", min_length=1)
    worker_port: Port = 8001
    worker_role: WorkerRole = "both"

    backbone: str = Field(default="pocket", min_length=1)
    backbone_revision: str | None = Field(
        default=None, min_length=1, description="Commit, branch or tag of a hub id."
    )
    device: str = Field(default="auto", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    max_rows: Count = Field(default=16, description="Sequences decoded together.")
    pack_weights: bool = Field(
        default=True,
        description="Keep a copy of the decoder's float32 weights that CPUs multiply faster with.",
    )
    max_new_tokens_limit: Count = 1024
    max_waiting: Count = Field(default=256, description="Requests that may wait for a row.")
    vector_cache_slots: Count = Field(default=64, description="Vectors kept on the device.")
    max_dose: float = Field(
        default=4.0,
        gt=0,
        description="Longest shift that is applied, as a multiple of the residual stream's length.",
    )
    training_share: float = Field(
        default=0.5, gt=0, le=1, description="Device time left to training while requests wait."
    )

    policy_vectors: Annotated[tuple[PolicyVector, ...], NoDecode] = Field(
        default=(),
        max_length=MAX_POLICY_VECTORS,
        description="Vectors added to every answer: `ref` or `ref=strength`, separated by commas.",
    )
    training_pass_tokens: Count = Field(
        default=2048,
        description="Tokens that training passes through the backbone before answers get a turn.",
    )

    max_upload_bytes: Count = 2048 * MEBIBYTE
    max_body_bytes: Count = Field(default=96 * MEBIBYTE, description="Of what a worker answers.")
    max_images: Count = 8
    max_image_bytes: Count = 10 * MEBIBYTE
    max_image_pixels: Count = 20_000_000
    min_image_side: Count = Field(default=8, description="In pixels.")
    max_image_side: Count = Field(default=8192, description="In pixels.")
    max_image_aspect: float = Field(default=20.0, ge=1, description="Longer over shorter side.")

    max_requests_per_caller: Count | None = Field(
        default=None, description="Requests for a worker that one caller may have in flight."
    )
    request_timeout_seconds: float = Field(default=120.0, gt=0)
    early_stream_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Waiting after which a stream begins with a comment, so no proxy ends it.",
    )
    openai_unknown: Literal["ignore", "refuse"] = Field(
        default="ignore",
        description="What the OpenAI-compatible routes do with harmless fields they do not know.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Sites whose pages may call the api, such as https://chat.example, separated "
        "by commas; * means all.",
    )
    drain_timeout_seconds: float = Field(default=20.0, gt=0)
    job_stalled_seconds: float = Field(
        default=30.0, gt=0, description="Silence after which a running job is queued again."
    )
    job_max_attempts: Count = 5
    retrieval_margin: float = Field(
        default=0.0, ge=0, le=2, description="Least lead of the best vector over the second."
    )
    retrieval_prefer: str = Field(
        default="preferred",
        min_length=1,
        description="Tag or alias of the vectors that `auto` takes among some for one task.",
    )
    retrieval_poll_seconds: float = Field(default=1.0, gt=0)
    database_pool_size: Count = 10
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    otlp_endpoint: str | None = Field(
        default=None,
        description="Collector of traces, such as http://127.0.0.1:4318; none means no traces.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        text = value.strip() if isinstance(value, str) else ""
        if text[:1] in {'"', "'"} and text.endswith(text[0]):
            raise ValueError("the quotes around it would be part of it: leave them out")
        return text or value

    @field_validator("data_dir", "pg_bin", "backbone", mode="before")
    @classmethod
    def _expand_home(cls, value: object) -> object:
        if not str(value).startswith("~"):
            return value
        try:
            return str(Path(str(value)).expanduser())
        except RuntimeError:
            raise ValueError("nobody knows the home that ~ stands for") from None

    @field_validator("workers", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("workers", "otlp_endpoint")
    @classmethod
    def _check_urls(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            if not _is_http(url):
                raise ValueError("an address is given as http://host:port")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if host != "*" and host[0] != "[" and set("*/:") & set(host.removeprefix("*.")):
                raise ValueError("a host is given by its name alone, as *.example.com, or as *")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and (not _is_http(origin) or urlsplit(origin).path):
                raise ValueError("an origin is given as https://host or https://host:port, or as *")
        return value

    @field_validator("policy_vectors", mode="before")
    @classmethod
    def _split_policy(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        return tuple(
            {"ref": ref.strip(), "strength": strength} if equals else {"ref": ref}
            for ref, equals, strength in entries
        )

    @field_validator("policy_vectors")
    @classmethod
    def _check_policy(cls, value: tuple[PolicyVector, ...]) -> tuple[PolicyVector, ...]:
        if len({VectorReference.parse(item.ref) for item in value}) < len(value):
            raise ValueError("a vector of the policy is named twice; give it one strength")
        return value

    @field_validator("object_store")
    @classmethod
    def _check_object_store(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in OBJECT_STORE_SCHEMES:
            raise ValueError("an object store is a file://, s3:// or gs:// URL")
        return value

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.min_image_side > self.max_image_side:
            raise ValueError("min_image_side is larger than max_image_side")
        if self.min_image_side**2 > self.max_image_pixels:
            raise ValueError("no image of min_image_side has at most max_image_pixels")
        if not self.workers and (self.host, self.port) == (self.worker_host, self.worker_port):
            raise ValueError("the api and the worker need different ports")
        return self

    @property
    def needs_keys(self) -> bool:
        """Whether every request needs a key: as it was set, or else when others can reach us."""
        return not is_loopback(self.host) if self.require_keys is None else self.require_keys

    @property
    def silence_seconds(self) -> float:
        """How long streams say nothing: less than a proxy that waits for exactly the setting."""
        return 0.8 * self.early_stream_seconds

    @property
    def objects_url(self) -> str:
        """Where uploaded files and checkpoints go."""
        return self.object_store or (self.data_dir.resolve() / "objects").as_uri()

    @property
    def postgres_dir(self) -> Path:
        """Folder of the embedded Postgres."""
        return self.data_dir / "postgres"


def _is_http(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def revealed(secret: SecretStr | None) -> str | None:
    """The text of a secret, where there is one."""
    return None if secret is None else secret.get_secret_value()
