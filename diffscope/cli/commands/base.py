"""The contract of a command: a file named after it, with a function `run` whose signature typer reads.

    def run(checkpoint: options.Checkpoint, json: options.Json = False) -> None:
        '''What it answers, in one line.

        Example: diffscope NAME CKPT
        '''
        from diffscope.api import load        # torch is imported here, not at the top
        ...

Results go to stdout, everything else to stderr; exceptions of `diffscope.errors` are rendered by `diffscope.cli`.
"""
