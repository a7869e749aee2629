"""ICR over a training run, and the onset of memorization."""
