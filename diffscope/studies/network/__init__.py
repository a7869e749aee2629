"""What a network of the user's own does with what was said of it."""
