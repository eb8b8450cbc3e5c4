"""Arch in, metrics out: one file each, `make(**options)`."""
