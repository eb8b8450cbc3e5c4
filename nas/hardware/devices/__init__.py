"""Where latency is measured: one file each, `make(**options)`."""
