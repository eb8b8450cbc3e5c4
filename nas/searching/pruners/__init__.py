"""What stops a losing training early: one file each, exporting `make(*, rungs)`."""
