"""From weights trained on other images (--init) to the user's own."""

from nas.training.recipe import Augment, Recipe

RECIPE = Recipe(
    name="finetune",
    source=(
        "after Kornblith et al. 2019 (arXiv 1805.08974), who fine-tune whole networks with "
        "Nesterov SGD, momentum 0.9, a cosine schedule, random crops and flips, and choose the "
        "learning rate and weight decay of each data set on a grid. Our own: one point of such a "
        "grid, 30 epochs in batches of 64 instead of their 20,000 steps of 256, the warm-up, the "
        "label smoothing, crops of at least a quarter of the area"
    ),
    expected="nothing measured yet; try lr ten times smaller and larger",
    epochs=30,
    batch_size=64,
    optimizer="sgd",
    lr=0.04,
    schedule="cosine",
    warmup_epochs=1,
    momentum=0.9,
    weight_decay=1e-4,
    label_smoothing=0.1,
    augment=Augment(crop="resized", scale=(0.25, 1.0), flip=True),
)
