"""From weights to one's own images, by the rule of nas/training/auto.py; numbers for one folder."""

from nas.training.auto import Situation, plan

RECIPE = plan(Situation(images=3_000, classes=10, side=128, start="weights")).recipe
