"""Images on their way to a batch: found, split, decoded, varied."""
