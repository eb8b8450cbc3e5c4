"""Who runs evaluations: one file each, `make(evaluator, options, *, workers)`."""
