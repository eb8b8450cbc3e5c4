"""How EfficientNet was trained on ImageNet, as the released TensorFlow code does it."""

from nas.training.recipe import Augment, Recipe

RECIPE = Recipe(
    name="efficientnet",
    source=(
        "Tan & Le 2019, arXiv 1905.11946v5, section 5.2, and the defaults of the released code "
        "(tensorflow/tpu, models/official/efficientnet): 0.016 per 256 images, weight decay 1e-5, "
        "RMSProp, AutoAugment. There the batch is 2048 (4096 in the paper): --batch-size sets it, "
        "the learning rate follows. Unlike there, biases have no weight decay"
    ),
    expected=(
        "ImageNet-1k top-1 77.1 % (B0, 224 px) to 84.3 % (B7, 600 px) after 350 epochs, single "
        "crop, by the authors (Table 2); not repeated by us"
    ),
    epochs=350,
    batch_size=256,
    optimizer="rmsprop_tf",
    lr=0.016,
    schedule="exponential",
    warmup_epochs=5,
    decay_rate=0.97,
    decay_epochs=2.4,
    momentum=0.9,
    weight_decay=1e-5,
    label_smoothing=0.1,
    ema=0.9999,
    augment=Augment(crop="resized", scale=(0.08, 1.0), flip=True, policy="autoaugment"),
)
