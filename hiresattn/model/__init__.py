"""The network: parts, recursion and the traversal it records."""
