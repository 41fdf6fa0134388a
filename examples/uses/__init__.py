"""Three uses of vectors, each with its measured effect: `make examples`."""
