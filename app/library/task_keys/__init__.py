"""The stored task embeddings, and the epochs that tell what changed of them."""
