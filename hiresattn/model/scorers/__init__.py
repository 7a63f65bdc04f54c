"""What says which cells of a region are interesting."""
