"""Pictures and numbers for people: overlays, charts, human-readable units."""
