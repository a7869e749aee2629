"""Measuring, for every study: settings, what is run at one go, rows of numbers, series of checkpoints."""
