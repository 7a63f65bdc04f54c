"""From sources to records: open, search, answer."""
