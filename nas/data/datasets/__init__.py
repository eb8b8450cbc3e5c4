"""Readers of data sets; each file exports `matches(data)` and `read(data, *, download)`."""
