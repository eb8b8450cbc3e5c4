"""Where numbers of a training are shown: one file each, `make(folder, name, config)`."""
