"""Pruners stop trainings that fall behind: one file each, exporting `make(*, rungs, ...)`.

Further keywords with a default are its options (`--pruner-option name=value`). `--pruner ./x.py`
takes a user's file.
"""
