"""What a user sees of a result: in the terminal, in a folder, in a notebook, in the summary of a CI run."""
