"""File formats of networks: one file each, `FILE`, `check`, `write`, `run` and `hint`."""
