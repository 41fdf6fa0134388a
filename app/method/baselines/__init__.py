"""What M2IV is measured against: one file a method, the same call each."""
