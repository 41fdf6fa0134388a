"""What the server says about an answer, as frozen records; knows nothing of HTTP."""

from dataclasses import dataclass

from vlibrary_client.notebooks import table
from vlibrary_client.types import VectorName


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedVector(VectorName):
    """A vector that really was added while answering, by the digest of its stored bytes.

    `source` says who asked for it: `request`, `retrieval`, or the server's `policy`. `effect` is
    `none` where the strength is 0, or all that was added comes to nothing.
    """

    sha256: str
    strength: float
    source: str = "request"
    effect: str = "shift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The worker's proof: in every forward, `sites_hit` of `sites_expected` sites were shifted.

    `kl_first_token` (nats) compares the steered with the unsteered first token, when the
    baseline was asked for. `dose` is the largest ratio, over the layers, of the shift's length to
    that of what it is added to.
    """

    sites_hit: int
    sites_expected: int
    num_forwards: int
    kl_first_token: float | None = None
    dose: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoRetrieval:
    """What `vector="auto"` found; an abstention means that the answer is unsteered."""

    abstained: bool
    reason: str | None = None
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token that could have come, with its natural log-probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs(TokenLogprob):
    """The token that was taken, and the likeliest ones in its place."""

    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The same request answered without any vector."""

    text: str
    finish_reason: str
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the request's time went, in milliseconds."""

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneName:
    """The backbone that answered."""

    fingerprint: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A generated answer. `applied` is empty exactly when nothing steered it.

    `notes` tell what was not done as it was asked, or is known not to work.
    """

    id: str
    text: str
    finish_reason: str
    usage: Usage
    applied: tuple[AppliedVector, ...]
    receipt: Receipt
    timings: Timings
    backbone: BackboneName
    retrieval: AutoRetrieval | None = None
    baseline: Baseline | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """The answer as notebooks show it, with what steered it."""
        steered = [f"{one.name}@{one.version} x {one.strength:g}" for one in self.applied]
        rows = [("answer", self.text), ("steered by", steered), *(("note", n) for n in self.notes)]
        return table(("", self.backbone.name), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What came of a streamed answer since the last one; the texts joined are the answer's."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
