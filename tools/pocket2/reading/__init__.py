"""The second stage: a decoder that reads episodes of pictures and words."""
