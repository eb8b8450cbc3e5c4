"""Short training that ranks candidates of a search: our own."""

from nas.training.recipe import Augment, Recipe

RECIPE = Recipe(
    name="proxy",
    source=(
        "our own: SGD with Nesterov momentum on one learning-rate cycle (Smith & Topin 2017), "
        "little regularisation as little is learned by heart in few epochs, and batch norm that "
        "follows within some tens of steps; optimizer, rate and batch by scripts/tune_proxy.py"
    ),
    expected=(
        "CIFAR-10, 4,500 images, 2 epochs, two archs under 6M multiply-adds: 31.9 % validation "
        "top-1, where AdamW gave 24.5 at rate 0.008 and 28.2 at 0.02; one seed each"
    ),
    epochs=10,
    batch_size=64,
    optimizer="sgd",
    lr=0.4,
    schedule="one_cycle",
    warmup_epochs=2.5,
    momentum=0.9,
    weight_decay=0.0005,
    dropout=0.0,
    stochastic_depth=0.0,
    norm_momentum=0.1,
    augment=Augment(crop="shift", shift=0.125, flip=True),
)
