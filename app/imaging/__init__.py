"""Bytes to the model's square: what a radiograph is, however it was stored."""
