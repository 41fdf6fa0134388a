"""What is known of vectors that are added to each other."""

from collections.abc import Sequence

from app.api.steer.vector_selection import ChosenVector


def notes_on_sum(chosen: Sequence[ChosenVector]) -> tuple[str, ...]:
    """A warning where several vectors of tasks act at once; those of the policy are made for it."""
    tasks = [use.record for use in chosen if use.source != "policy" and use.strength]
    if len(tasks) < 2:  # noqa: PLR2004 - a sum has two parts
        return ()
    names = ", ".join(f"{record.name}@{record.version}" for record in tasks)
    note = (
        f"The sum of {names} was never measured, and sums of vectors of different tasks usually "
        "keep neither task; train one vector on the items of all of them instead."
    )
    return (note,)
