"""What the Ray executor (`executors/ray.py`) is made of; nothing else imports Ray."""
