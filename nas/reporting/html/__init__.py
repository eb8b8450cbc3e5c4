"""The pages of a report: a search, a family, and what they are drawn with."""
