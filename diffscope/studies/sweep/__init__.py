"""ICR over noise levels and layers, and the semantic window."""
