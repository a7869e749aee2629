"""What a table of commands does, kept word for word: a refactoring is held to it, and a test to what matters of it."""
