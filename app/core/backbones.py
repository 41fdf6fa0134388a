"""What must be known of a backbone to tell whether vectors fit it, without loading it."""

from dataclasses import dataclass, field

from app.core.errors import IncompatibleBackboneError


@dataclass(frozen=True, kw_only=True)
class BackboneDescription:
    """The identity and the sizes of one frozen vision-language model.

    Fingerprints, of 64 hexadecimal digits, are equal exactly when vectors may be exchanged;
    `digests` are those of tokenizer, processor, chat template and revision that one was made of.
    `max_position_embeddings` is the longest sequence in tokens, or 0 when the config sets none.
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

    @property
    def num_sites(self) -> int:
        """Places where a vector is added in a pass: both branches of every layer."""
        return 2 * self.num_layers


def require_same_backbone(*, wanted: str, found: str) -> None:
    """Returns when both fingerprints are equal.

    Raises:
        IncompatibleBackboneError: They differ.
    """
    if wanted != found:
        raise IncompatibleBackboneError(
            f"The vectors belong to another backbone: wanted {wanted[:12]}, found {found[:12]}",
            details={"wanted": wanted, "found": found},
        )
