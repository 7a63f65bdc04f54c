"""Tools for Functional Map of the World: its classes, files, challenge score, and the protocols of papers."""
