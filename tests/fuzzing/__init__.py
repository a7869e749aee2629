"""Damaged and hostile files of every kind that diffscope reads, and a process to open them in.

`seeds` makes small good files, `mutations` damages them, `corpus` holds those that once did harm, `children` runs one
command on one of them under a limit of time and memory and says how it ended. Shared by the tests, which try a few
hundred, and by scripts/fuzz.py, which goes on for as long as it is told.
"""
