"""What the Ray executor is made of; the only room that knows Ray."""
