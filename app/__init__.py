"""VLibrary: train, keep, find and apply multimodal in-context vectors on frozen LVLMs."""
