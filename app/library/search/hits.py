"""What an index finds."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """One set of vectors with its similarity to the query.

    Attributes:
        vector_id: Which.
        name: Shared by all versions.
        score: Cosine with the nearest key; of the part of the query that fits least, where rows
            have a picture's part and a question's.
        threshold: What `score` has to reach.
        similarity: What ranks it: the mean cosine over the query's parts.
        is_accepted: Whether the query counts as its task.
    """

    vector_id: uuid.UUID
    name: str
    score: float
    threshold: float
    similarity: float
    is_accepted: bool
