"""What to learn from and to classify: examples, manifests, folders, boxes."""
