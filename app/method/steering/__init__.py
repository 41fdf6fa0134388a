"""What a vector is and how it is applied."""
