"""Where trials are kept: a study in the journal of a run, or in a database that drivers share."""
