"""The signatures of the verbs: of their settings, at run time and in the file for type checkers."""

import inspect
import sys
from pathlib import Path

import pytest

import nas
from nas.core.settings import Settings, reader_of
from nas.scaling.settings import ScaleSettings
from nas.searching.fidelity.settings import ProxySettings
from nas.searching.settings import SearchSettings
from nas.training.settings import TrainSettings

SCRIPTS = Path(__file__).parents[2] / "scripts"
MODELS = {
    "plan": SearchSettings,
    "proxy_check": ProxySettings,
    "scale": ScaleSettings,
    "search": SearchSettings,
    "train": TrainSettings,
}


def test_the_stub_is_what_the_verbs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from write_stub import STUB, main, stub  # type: ignore[import-not-found]

    same = STUB.read_text(encoding="utf-8") == stub()
    assert same, f"{STUB} is stale: run python scripts/write_stub.py"
    main(["--check"])
    monkeypatch.setattr(sys.modules["write_stub"], "STUB", STUB.with_name("missing.pyi"))
    with pytest.raises(SystemExit, match="is stale: run python"):
        main(["--check"])


@pytest.mark.parametrize("name", MODELS)
def test_a_verb_shows_each_setting_with_its_default_and_help(name: str) -> None:
    verb, model = getattr(nas, name), MODELS[name]
    parameters = inspect.signature(verb).parameters
    assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    told = " ".join(verb.__doc__.split())
    for key, field in model.model_fields.items():
        if (name, key) == ("proxy_check", "data"):  # the first argument, which must be given
            continue
        assert parameters[key].default == field.default
        assert f"{key}: {' '.join(str(field.description).split())}" in told


@pytest.mark.parametrize("model", dict.fromkeys(MODELS.values()), ids=lambda model: model.VERB)
def test_a_setting_reads_what_it_is_by_default_and_keeps_what_it_has_read(
    model: type[Settings],
) -> None:
    for key, field in model.model_fields.items():
        if field.default is not None:
            assert reader_of(field).read(field.default, key) == field.default


def test_what_was_read_is_read_again_as_it_is() -> None:
    typed = {"target_flops": "0.4G", "time_limit": "20m", "target_latency": "800us", "w": "-0.07"}
    found = SearchSettings.model_validate({**typed, "device": "cpu", "space": Path("a/b.py")})
    assert (found.target_flops, found.time_limit) == (400_000_000, 1200.0)
    assert (found.target_latency, found.w, found.space) == (0.8, -0.07, str(Path("a/b.py")))
    assert SearchSettings.model_validate(found.model_dump()) == found
