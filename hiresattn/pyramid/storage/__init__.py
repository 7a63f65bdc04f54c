"""How files store their pixels: tiles, chunks, byte ranges, headers."""
