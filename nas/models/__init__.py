"""Networks: archs, their layers, cost and torch modules."""
