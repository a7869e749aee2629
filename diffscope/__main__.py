"""`python -m diffscope`: the command line."""

import os

try:
    from diffscope.cli import main
except KeyboardInterrupt:  # before `main` can answer it
    os._exit(130)

main()
