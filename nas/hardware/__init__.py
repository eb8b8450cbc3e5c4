"""The machine that a network runs on: facts, timing, latency, devices."""
