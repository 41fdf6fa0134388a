"""What every route shares: access, admission, errors, uploads."""
