"""How a steered answer is made: choose the vectors, call a worker, check the receipt."""
