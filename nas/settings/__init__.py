"""What decides each verb: one field a flag."""
