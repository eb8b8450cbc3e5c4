"""What this machine is and how fast: facts, timing, latency."""
