"""Start of a search: warm starts, priors, the run to resume."""
