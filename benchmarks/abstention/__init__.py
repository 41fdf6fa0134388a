"""Whether the right vectors are found, or none: tasks, their pictures, and the figures."""
