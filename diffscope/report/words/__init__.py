"""What is said of each kind of result, in plain strings: its view and its figures use the same words."""
