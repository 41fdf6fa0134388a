"""From demonstrations to vectors: plan, teacher, student, losses, loop."""
