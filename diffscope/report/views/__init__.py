"""How each command's results are seen: a file a command, named as the result's `command`; `base` has the contract."""
