"""A teacher: where it comes from, what it says, what a training learns from it, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import TINY, digits, equal, job, last, numbers, same
from torch import nn
from torch.nn import functional

from nas.core import run_folder
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.data.augment_settings import Augment
from nas.data.loader import Data
from nas.models.build import Model
from nas.models.cost import count
from nas.training import find_teacher as finding
from nas.training import memory
from nas.training import teacher as teaching
from nas.training.find_teacher import check_classes, find_teacher, make_teacher, view_pixels
from nas.training.loop import fit, training_flops
from nas.training.recipe import load_recipe
from nas.training.teacher import (
    FACTS,
    WEIGHTS,
    Answer,
    Candidate,
    Normal,
    Renormalised,
    Teacher,
    ask,
    listening,
    loss_of,
    read_teacher,
    weakness,
    with_views,
    write_teacher,
)

pytestmark = pytest.mark.usefixtures("one_thread")
OWN: Normal = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


def candidate(classes: tuple[str, ...] = (), seed: int = 0, source: str = "x.pth") -> Candidate:
    """Return a fresh net that may teach, of these classes."""
    torch.manual_seed(seed)
    return Candidate(source, Model(TINY).eval(), OWN, classes, "a tiny net", 32)


def made(found: Candidate, data: Data, pixels: int = 32) -> Teacher:
    return make_teacher(
        *(found, data, lambda side: digits(0.1, side)),
        pixels=pixels,
        device="cpu",
        mixed=False,
        say=lambda text: None,
    )


@pytest.fixture(scope="module")
def teacher(data: Data) -> Teacher:
    return made(candidate(), data)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm, whose pretrained weights are random ones."""
    library = pytest.importorskip("timm")
    create = library.create_model

    def fresh(name: str, pretrained: bool = False, **more: Any) -> Any:
        torch.manual_seed(0)
        return create(name, pretrained=False, **more)

    monkeypatch.setattr(library, "create_model", fresh)
    return library


# ------------------------------------------------------------------------------------ what it says


def test_the_loss_is_that_of_hinton(data: Data) -> None:
    torch.manual_seed(0)
    logits, taught = torch.randn(8, 10), Answer(torch.randn(8, 10), torch.zeros(8, 1))
    labels = torch.arange(8)
    options = {"teacher_share": 0.3, "temperature": 4.0, "label_smoothing": 0.1}
    recipe = load_recipe("proxy", options)
    own = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    theirs, ours = (taught.logits / 4).softmax(1), (logits / 4).softmax(1)
    apart = (theirs * (theirs / ours).log()).sum(1).mean()
    expected = 0.7 * own + 0.3 * 16 * apart
    assert loss_of(recipe, logits, labels, taught) == pytest.approx(float(expected), rel=1e-5)
    assert loss_of(recipe, logits, labels, None) == own
    alone = dataclasses.replace(recipe, teacher_share=1.0)
    same_as_taught = loss_of(alone, taught.logits, labels, taught)
    assert float(same_as_taught) == pytest.approx(0, abs=1e-6)


def test_features_are_compared_where_they_are_as_long(
    data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    x, y = next(iter(data.val.ordered(8)))
    recipe = load_recipe("proxy", {"teacher_features": 3.0})
    wide = dataclasses.replace(TINY, head=dataclasses.replace(TINY.head, channels=24))
    for arch, heard in ((TINY, 1), (wide, 0)):
        model = Model(arch).eval()
        with listening(teacher, recipe, model) as vectors, torch.no_grad():
            model(x)
        assert len(vectors) == heard
        model(x)
        assert len(vectors) == heard  # it listens no more
    taught, model = ask(teacher, x), Model(TINY).eval()
    with listening(teacher, recipe, model) as vectors, torch.no_grad():
        logits = model(x)
    assert torch.equal(vectors[0].flatten(1), model.forward_head(model.forward_features(x), True))
    apart = 1 - functional.cosine_similarity(vectors[0].flatten(1), taught.vectors).mean()
    without = loss_of(recipe, logits, y, taught)
    assert loss_of(recipe, logits, y, taught, vectors) == pytest.approx(
        float(without + 3 * apart), rel=1e-5
    )
    weights = []
    for name, weight in (("logits", 0.0), ("both", 3.0)):
        fit(job(1, teacher=teacher, teacher_features=weight, lr=0.2), data, tmp_path / name)
        weights.append(last(tmp_path / name)[0])
    assert not equal(*weights)


def test_it_sees_the_view_of_its_student_normalised_as_its_own() -> None:
    given: Normal = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    net = candidate().net
    pixels = torch.rand(2, 3, 32, 32)

    def seen(normal: Normal) -> torch.Tensor:
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in normal)
        return (pixels - mean) / std

    with torch.no_grad():
        wanted = net(seen(OWN))
        assert torch.allclose(Renormalised(net, OWN, given)(seen(given)), wanted, atol=1e-5)


def test_it_answers_without_gradients_and_stays_as_it_is(data: Data, teacher: Teacher) -> None:
    before = {name: value.clone() for name, value in teacher.net.state_dict().items()}
    x, _ = next(iter(data.val.ordered(8)))
    answer = ask(teacher, x)
    assert answer.logits.shape == (8, 10) and answer.vectors.shape == (8, 16)
    assert not answer.logits.requires_grad
    assert torch.allclose(answer.logits, teacher.net(x), atol=1e-5)
    assert equal(before, dict(teacher.net.state_dict()))


# ----------------------------------------------------------------------------- where it comes from


def test_classes_in_another_order_are_mapped(data: Data) -> None:
    found = candidate(tuple(reversed(data.classes)))
    x, _ = next(iter(data.val.ordered(4)))
    plain = Renormalised(found.net, OWN, (data.mean, data.std))(x).detach()
    mapped = made(found, data)
    assert torch.allclose(mapped.net(x), plain.flip(1), atol=1e-5)
    assert not mapped.facts.probed and mapped.facts.classes == data.classes


def test_a_teacher_that_knows_less_than_its_student_is_told(teacher: Teacher) -> None:
    assert weakness(teacher.facts, teacher.facts.top1) == ""
    assert "is worse than what its student starts from (99.00 %)" in weakness(teacher.facts, 99)


def test_a_net_of_other_classes_gets_a_linear_probe_first(data: Data, teacher: Teacher) -> None:
    facts = teacher.facts
    assert facts.probed and facts.top1 > 30 and facts.images == len(data.val)  # guessing: 10
    assert facts.flops == count(TINY).flops and facts.params == count(TINY).params


def test_any_net_of_timm_can_teach(timm: Any, data: Data, tmp_path: Path) -> None:
    for name, pixels in (("test_efficientnet.r160_in1k", 32), ("test_vit.r160_in1k", 160)):
        taught = made(find_teacher(f"timm:{name}"), data)
        assert taught.facts.pixels == pixels and taught.facts.probed
        assert taught.facts.top1 > 20
        write_teacher(tmp_path / name, taught)
        kept = made(read_teacher(tmp_path / name), data)
        *_, x = next(with_views(taught, data.train, 0, 0, 4, Augment()))
        assert x.shape[-1] == pixels
        assert torch.equal(ask(kept, x).logits, ask(taught, x).logits)
        assert kept.facts == taught.facts


def test_what_was_written_is_read_again(data: Data, teacher: Teacher, tmp_path: Path) -> None:
    write_teacher(tmp_path, teacher)
    kept = made(find_teacher("gone", tmp_path), data)
    x, _ = next(iter(data.val.ordered(4)))
    assert torch.equal(ask(kept, x).logits, ask(teacher, x).logits)
    assert repr(kept) == repr(teacher)


def test_it_sees_the_same_part_of_an_image_at_its_own_pixels(data: Data) -> None:
    taught = made(candidate(data.classes), data, pixels=64)
    assert taught.facts.pixels == 64 and taught.facts.flops == count(TINY, 64).flops
    augment = Augment(crop="resized", scale=(0.3, 1.0), flip=True)
    for x, _, seen in with_views(taught, data.train, 1, 0, 32, augment):
        assert seen.shape[-2:] == (64, 64) and x.shape[-2:] == (32, 32)
        smaller = functional.interpolate(seen, size=32, mode="area")
        likeness = functional.cosine_similarity(smaller.flatten(1), x.flatten(1))
        others = functional.cosine_similarity(smaller.flatten(1), x.flip(0).flatten(1))
        assert likeness.min() > 0.9 > others.mean()


@pytest.mark.parametrize(
    ("probed", "fixed", "side", "expected"),
    [
        (False, False, 64, 224),
        (True, True, 64, 224),
        (True, False, 64, 128),
        (True, False, 96, 160),
    ],
)
def test_which_pixels_it_sees(probed: bool, fixed: bool, side: int, expected: int) -> None:
    found = dataclasses.replace(candidate(), pixels=224, fixed=fixed)
    assert view_pixels(found, side, probed=probed) == expected


def test_the_largest_that_is_installed_is_the_pretrained_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {row.baseline for row in finding.PACKAGES if finding.file_of(row)}
    if len(rows) < 2:
        pytest.skip("one package of weights at most is installed")
    assert find_teacher("pretrained").told == f"pretrained {max(rows)}"
    monkeypatch.setattr(finding, "PACKAGES", ())
    with pytest.raises(OptionError, match="finds no weights installed"):
        find_teacher("pretrained")


# ----------------------------------------------------------------------------- what is learnt of it


def test_a_training_with_a_teacher_resumes_to_the_bit(
    data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    this = job(3, teacher=teacher, dropout=0.2, ema=0.9)
    calm = fit(this, data, tmp_path / "calm")
    write_teacher(tmp_path / "kept", teacher)
    for until in (1, 2, 3):
        read = made(read_teacher(tmp_path / "kept"), data)
        rows = fit(job(3, teacher=read, dropout=0.2, ema=0.9), data, tmp_path / "b", until=until)
    assert numbers(rows) == numbers(calm)
    assert same(tmp_path / "calm", tmp_path / "b")
    assert training_flops(this, data, 3) == training_flops(job(3), data, 3)


def test_the_labels_play_no_part_where_the_teacher_has_the_whole_loss(
    data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    for name, smoothing in (("plain", 0.0), ("smooth", 0.5)):
        options = {"teacher_share": 1, "label_smoothing": smoothing}
        fit(job(1, teacher=teacher, **options), data, tmp_path / name)
    assert equal(last(tmp_path / "plain")[0], last(tmp_path / "smooth")[0])
    off = {"teacher_share": 0, "teacher_features": 0}
    fit(job(1, teacher=teacher, **off), data, tmp_path / "none of it")
    fit(job(1), data, tmp_path / "untaught")
    assert equal(last(tmp_path / "none of it")[0], last(tmp_path / "untaught")[0])
    assert not equal(last(tmp_path / "plain")[0], last(tmp_path / "untaught")[0])


def test_a_checkpoint_of_another_teacher_is_refused(
    data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    fit(job(2, teacher=teacher), data, tmp_path, until=1)
    for other in (None, made(candidate(data.classes, seed=1), data)):
        with pytest.raises(RunError, match="another training"):
            fit(job(2, teacher=other), data, tmp_path)


def test_a_teacher_counts_in_what_fits(
    data: Data, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = count(TINY)
    free = (cost.training_bytes + 1.3 * 32 * cost.training_bytes_per_image) / 0.8 + 1
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    assert memory.parts_that_fit(TINY, 32, 1, "cpu") == 1
    dear = 4.0 * cost.training_bytes_per_image
    assert memory.parts_that_fit(TINY, 32, 1, "cpu", beside=(0.0, dear)) == 4
    with pytest.raises(NasError, match="with its teacher needs about"):
        memory.parts_that_fit(TINY, 32, 1, "cpu", beside=(1e9, 0.0))
    weights, maps = teacher.facts.memory
    assert weights == 4 * cost.params and 0 < maps < cost.training_bytes_per_image


# --------------------------------------------------------------------------------- what is refused


def test_a_run_of_other_classes_cannot_teach(data: Data, tmp_path: Path) -> None:
    fit(job(1), data, tmp_path / "run")
    found = find_teacher(str(tmp_path / "run"))
    check_classes(found, data.classes)
    with pytest.raises(OptionError, match="does not know ant and knows 9, which the images"):
        check_classes(found, (*data.classes[:-1], "ant"))


def test_what_is_no_teacher_is_said_in_one_line(
    timm: Any, data: Data, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="no such run"):
        find_teacher("nowhere")
    with pytest.raises(OptionError, match="did you mean 'test_vit'"):
        find_teacher("timm:test_wit")
    write_teacher(tmp_path, teacher)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="cannot read the weights"):
        read_teacher(tmp_path)
    write_teacher(tmp_path, made(candidate(data.classes, seed=1), data))
    facts = run_folder.read_json(tmp_path / FACTS) | {"digest": "0"}
    run_folder.write_json(tmp_path / FACTS, facts)
    with pytest.raises(RunError, match="not those of its"):
        read_teacher(tmp_path)
    with pytest.raises(RunError, match="there is no teacher in"):
        read_teacher(tmp_path / "nowhere")
    no_head = dataclasses.replace(candidate(), net=nn.Sequential())
    no_head.net.get_classifier = nn.Identity  # type: ignore[assignment]
    with pytest.raises(OptionError, match="no single linear classifier, but Identity"):
        made(no_head, data)

    def gone() -> Any:
        raise MissingError("this teacher is a net of timm: pip install timm")

    monkeypatch.setattr(finding, "timm_library", gone)
    monkeypatch.setattr(teaching, "timm_library", gone)
    with pytest.raises(MissingError, match="pip install timm"):
        find_teacher("timm:test_vit")
