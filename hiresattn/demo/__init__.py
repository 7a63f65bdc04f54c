"""A synthetic gigapixel scene, the model that finds its needle, and the demo command's run."""
