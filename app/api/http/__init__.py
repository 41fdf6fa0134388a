"""What every route shares: admission, cancellation, errors, uploads."""
