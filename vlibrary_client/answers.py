"""What the server says about answers, and about several vectors at once, as frozen records."""

from dataclasses import dataclass
from uuid import UUID

from vlibrary_client.notebooks import table
from vlibrary_client.types import Evaluation, Vector, VectorName


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
        if self.retrieval is not None and self.retrieval.abstained:
            rows.insert(2, ("abstained", self.retrieval.reason or "yes"))
        if self.baseline is not None:
            rows.insert(1, ("without", self.baseline.text))
        return table(("", self.backbone.name), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What came of a streamed answer since the last one; the texts joined are the answer's."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one of many was left as it is, by the codes of `vlibrary_client.errors`."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one of many; `error` tells why when it is not `ok`."""

    ref: str
    ok: bool
    id: UUID | None = None
    name: str | None = None
    version: int | None = None
    error: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of each, in the order of the request."""

    items: tuple[Outcome, ...]
    num_failed: int

    def _repr_html_(self) -> str:
        """What became of each as notebooks show it."""
        rows = [(one.ref, one.ok, one.error and one.error.detail) for one in self.items]
        return table(("", "ok", "why not"), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What several vectors did on the same data set, split and metric.

    `results` is in the order of the vectors, `None` for those that were not measured; `best` is the
    first position of the highest accuracy, and `is_clear` tells whether its 95 % interval lies
    above those of all others.
    """

    dataset: str
    split: str
    scorer: str
    results: tuple[Evaluation | None, ...]
    best: int
    is_clear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Vectors beside each other.

    `similarity[i][k]` is the cosine between two of them over all layers, `None` between backbones.
    """

    vectors: tuple[Vector, ...]
    comparisons: tuple[Comparison, ...]
    similarity: tuple[tuple[float | None, ...], ...]

    def _repr_html_(self) -> str:
        """The vectors as notebooks show them: a column each, what was measured, their cosines."""
        names = [vector.ref for vector in self.vectors]
        measured = [
            (
                f"{one.dataset} {one.split}",
                *(result and f"{result.accuracy:.1%}" for result in one.results),
            )
            for one in self.comparisons
        ]
        cosines = [
            (f"cosine with {name}", *(None if value is None else f"{value:.3f}" for value in row))
            for name, row in zip(names, self.similarity, strict=True)
        ]
        return table(("", *names), [*measured, *cosines])


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedVector(Vector):
    """A sum of vectors; `best_part` is the part that did best where all were measured alike."""

    best_part: UUID | None = None
