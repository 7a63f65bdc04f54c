"""Records, overlays and what people look at."""
