def cold_vector() -> None:
    """x."""
