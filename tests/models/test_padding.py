"""TensorFlow's SAME padding as a property of an arch: what it computes, costs and is named."""

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.models import cost
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import build_model
from nas.models.compound import scale_arch
from nas.models.layers import Conv, Pool
from nas.models.load import baselines
from nas.models.modules import Conv2dSame
from nas.models.show import show
from nas.reporting.terminal import look

torch.set_num_threads(1)

TINY = Arch(
    "tiny_same",
    (Stage("mbconv", 16, 2, 5, 2, 3.0, 0.25), Stage("bottleneck", 24, 1, 3, 3, 2.0)),
    Stem(8),
    Head(32, classes=5),
    resolution=48,
    padding="same",
)


def by_hand(conv: nn.Conv2d, x: Tensor, stride: int) -> Tensor:
    """Return the convolution with every output at the place that SAME's definition gives it."""
    kernel = conv.weight.shape[-1]
    sizes = [math.ceil(side / stride) for side in x.shape[2:]]
    before = [
        max((n - 1) * stride + kernel - side, 0) // 2
        for n, side in zip(sizes, x.shape[2:], strict=True)
    ]
    wide = nn.functional.pad(x, (before[1], 2 * kernel, before[0], 2 * kernel))
    rows = [
        (wide[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel])
        for i in range(sizes[0])
        for j in range(sizes[1])
    ]
    values = [torch.einsum("nchw,ochw->no", row, conv.weight) for row in rows]
    return torch.stack(values, -1).reshape(len(x), -1, *sizes)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 12), (13, 10)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_an_output_reads_the_pixels_that_same_says(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = Conv(3, 4, kernel, stride, padding="same").module()[0]
    nn.init.zeros_(conv.bias)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(conv(x), by_hand(conv, x, stride))


def test_only_strided_convolutions_of_more_than_a_pixel_are_of_another_kind() -> None:
    model = build_model(TINY)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert all(isinstance(m, Conv2dSame) == (m.stride != (1, 1)) for m in convs)
    assert [m.stride[0] for m in convs if isinstance(m, Conv2dSame)] == [2, 2, 3]
    assert model.state_dict().keys() == build_model(symmetric(TINY)).state_dict().keys()


def symmetric(arch: Arch) -> Arch:
    return replace(arch, padding="symmetric")


def test_pools_stay_symmetric() -> None:
    arch = replace(TINY, stem=Stem(8, pool=2))
    layers = cost.stem_layers(arch.stem, 3, arch.norm, arch.activation, arch.padding)
    assert layers[1] == Pool("max", 8, 2)


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_a_same_net_costs_the_same_flops_and_a_copy_more_memory(size: tuple[int, int]) -> None:
    found, plain = cost.count(TINY, size), cost.count(symmetric(TINY), size)
    assert (found.params, found.flops) == (plain.params, plain.flops)
    assert found.training_bytes_per_image > plain.training_bytes_per_image
    assert found.inference_bytes >= plain.inference_bytes
    model = build_model(TINY).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    assert counter.get_total_flops() // 2 == found.flops


def test_the_default_changes_no_id_and_old_files_are_read() -> None:
    plain = symmetric(TINY)
    old = {key: value for key, value in plain.to_dict().items() if key != "padding"}
    assert Arch.from_dict(old) == plain
    assert Arch.from_dict(TINY.to_dict()) == TINY
    assert baselines()["efficientnet_b0"].id == "4dd759701d18"
    assert TINY.id != plain.id


def test_show_tells_it(tmp_path: Path) -> None:
    for arch in (TINY, symmetric(TINY)):
        (tmp_path / "arch.json").write_text(arch.to_json())
        out = io.StringIO()
        look.show_arch(show(str(tmp_path / "arch.json")), Console(file=out, width=200))
        assert ("padding      same: TensorFlow's" in out.getvalue()) == (arch is TINY)


def test_maps_of_a_same_net_are_as_large_as_stated() -> None:
    features = build_model(TINY, features_only=True).eval()
    maps = features(torch.zeros(1, 3, 37, 50))
    sizes = [(math.ceil(37 / s), math.ceil(50 / s)) for s in features.strides]
    assert [tuple(found.shape[2:]) for found in maps] == sizes


def test_channels_last_stays_in_the_padded_copy() -> None:
    conv = Conv(8, 8, 3, 2, padding="same").module()[0].to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 6, 6)
    found = conv(x.to(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, conv(x))


def test_scaled_members_keep_the_padding() -> None:
    assert scale_arch(TINY, depth=1.2, width=1.1, resolution=64).padding == "same"


@pytest.mark.slow
def test_same_convolutions_export_for_any_batch_height_and_width() -> None:
    layers = (Conv(3, 4, 3, 2, padding="same"), Conv(4, 4, 5, 3, 4, padding="same"))
    model = nn.Sequential(*(layer.module() for layer in layers)).eval()
    dim = torch.export.Dim
    free = {0: dim("n"), 2: dim("h", min=32, max=400), 3: dim("w", min=32, max=400)}
    images = torch.randn(2, 3, 40, 40)
    program = torch.export.export(model, (images,), dynamic_shapes={"input": free}).module()
    for shape in [(1, 3, 41, 64), (3, 3, 50, 35)]:
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), model(x))
