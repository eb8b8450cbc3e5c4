"""What proposes the next choices: one file each, `make(space, *, seed, ...)` and `OBJECTIVES`."""
