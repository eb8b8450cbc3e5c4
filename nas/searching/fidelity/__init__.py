"""How well short trainings rank archs."""
