"""Networks that families share. Each has a `walk` that yields (layer name, activation) in the order of execution."""
