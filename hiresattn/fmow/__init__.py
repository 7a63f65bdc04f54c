"""Functional Map of the World: its classes, its tree of files, its score, and the protocols of the papers."""
