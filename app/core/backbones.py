"""What must be known of a backbone to tell whether vectors fit it, without loading it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from app.core.errors import JSON, IncompatibleBackboneError, InvalidInputError


@dataclass(frozen=True, kw_only=True)
class BackboneDescription:
    """The identity and the sizes of one frozen vision-language model.

    Attributes:
        fingerprint: 64 hexadecimal digits; equal exactly when vectors may be exchanged.
        name: Where it came from: a bundled name, a hub id or a folder's name.
        architecture: The model class, such as `Idefics3ForConditionalGeneration`.
        num_layers: Decoder layers of the text decoder.
        hidden_size: Width of the residual stream.
        num_heads: Attention heads of a decoder layer.
        vocab_size: Rows of the text embedding.
        max_position_embeddings: Longest sequence in tokens, or 0 when the config sets none.
        digests: Digests the fingerprint was made of: tokenizer, processor, chat template, revision.
    """

    fingerprint: str
    name: str
    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    vocab_size: int
    max_position_embeddings: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, JSON]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, JSON]) -> Self:
        """The description that `to_dict` wrote; unknown fields are left out.

        Raises:
            InvalidInputError: A field is missing or of another type.
        """

        def text(name: str) -> str:
            value = fields.get(name)
            if not isinstance(value, str):
                raise InvalidInputError(f"A backbone's {name} is text")
            return value

        def count(name: str, *, least: int = 1) -> int:
            value = fields.get(name, 0)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidInputError(f"A backbone's {name} is a number of at least {least}")
            return value

        digests = fields.get("digests", {})
        if not isinstance(digests, Mapping):
            raise InvalidInputError("A backbone's digests are a mapping")
        return cls(
            fingerprint=text("fingerprint"),
            name=text("name"),
            architecture=text("architecture"),
            num_layers=count("num_layers"),
            hidden_size=count("hidden_size"),
            num_heads=count("num_heads"),
            vocab_size=count("vocab_size"),
            max_position_embeddings=count("max_position_embeddings", least=0),
            digests={str(key): str(value) for key, value in digests.items()},
        )


def require_same_backbone(*, wanted: str, found: str) -> None:
    """Returns when both fingerprints are equal.

    Args:
        wanted: Fingerprint of the backbone that is loaded.
        found: Fingerprint the vectors were made for.

    Raises:
        IncompatibleBackboneError: They differ.
    """
    if wanted != found:
        raise IncompatibleBackboneError(
            f"The vectors belong to another backbone: wanted {wanted[:12]}, found {found[:12]}",
            details={"wanted": wanted, "found": found},
        )
