"""The commands: flags in, one function of `nas.verbs` called, its result printed.

Each file holds plain functions; `nas.cli` makes commands of them. Heavy modules are imported
inside, so that help and usage errors answer at once.
"""
