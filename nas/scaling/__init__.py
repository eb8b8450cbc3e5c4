"""Compound scaling of a base to a family, and the fit of its coefficients."""
