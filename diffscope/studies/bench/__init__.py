"""How fast a sweep runs on this machine, and what the machine could do at best."""
