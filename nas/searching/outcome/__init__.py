"""What a search ends with: finals, selection, results."""
