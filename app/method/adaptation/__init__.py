"""Ways to change a frozen backbone for a task, and what fitting them shares."""
