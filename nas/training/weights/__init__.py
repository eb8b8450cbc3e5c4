"""Weights to start from: where they are found, under which names, and what inherits from them."""
