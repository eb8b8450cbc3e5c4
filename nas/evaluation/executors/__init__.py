"""Executors run evaluations: one file each.

A file exports `make(spec, *, workers, isolate, folder, seconds)`, with those of the keywords that
it uses: see `nas.interfaces.Executor`. `--executor ./x.py` takes a user's file.
"""
