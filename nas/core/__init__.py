"""What every other room stands on: errors, units, settings, run folders, the registry of parts."""
