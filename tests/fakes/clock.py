"""Time that passes only when it is told to."""


class Clock:
    """Seconds from any start; calling it reads it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
