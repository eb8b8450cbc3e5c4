"""How a net is trained: one file each, exporting `RECIPE`, with its source and what it gave."""
