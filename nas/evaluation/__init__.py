"""Arch in, metrics out: evaluators, executors and their workers."""
