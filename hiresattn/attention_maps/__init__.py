"""Attention accumulated over training, and its export as maps."""
