"""The Gaussian process over archs: features, posterior, acquisition."""
