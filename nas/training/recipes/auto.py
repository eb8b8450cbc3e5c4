"""Made for the folder by the rule of nas/training/auto.py; these are its numbers for one folder."""

from nas.training.auto import Situation, plan

RECIPE = plan(Situation(images=3_000, classes=10, side=64)).recipe
