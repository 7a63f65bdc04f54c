"""The command line; installed under the import name ``hiresattn_cli``."""
