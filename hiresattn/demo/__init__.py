"""A synthetic gigapixel scene with one small target, and the model that finds it."""
