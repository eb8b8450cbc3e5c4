"""What a search begins with: warm starts, priors, the run to resume."""
