def steering() -> None:
    """x."""
