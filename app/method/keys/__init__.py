"""Where a task lies in the space in which its vectors are found again."""
