"""What the command line offers, as functions; `nas` re-exports them."""
