"""What must be known of a backbone to tell whether vectors fit it, without loading it."""

from dataclasses import asdict, dataclass, field

from app.core.errors import JSON, IncompatibleBackboneError


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
