"""How points of a space are drawn at random within bounds on their cost."""
