"""From regions to a plan in which each tile is read once."""
