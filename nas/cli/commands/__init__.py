"""The commands: flags in, one verb called, its result printed.

Each file holds plain functions; `nas.cli.program` makes commands of them. Heavy modules are
imported inside, so that help and usage errors answer at once.
"""
