"""The fit of alpha, beta, gamma."""
