"""The contract of a file format: what is written answers as the network does."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.core import registry
from nas.exporting.export import export
from nas.exporting.request import ExportRequest, make_facts
from nas.models.build import Model
from nas.testing.contract import SMALL, Contract


class ExporterContract(Contract):
    """Tests of a file with FILE, `check`, `write`, `run` and `hint`."""

    room = "exporters"

    @pytest.fixture
    def asked(self) -> ExportRequest:
        return ExportRequest(SMALL, Model(SMALL).eval(), make_facts(SMALL, None))

    def test_its_file_answers_as_the_network_does(self, tmp_path: Path) -> None:
        found = export(SMALL, format=self.named(), project=tmp_path)
        assert [row["batch"] for row in found["comparison"]] == [1, 2, 5]
        assert [row["argmax_equal"] for row in found["comparison"]] == [1, 2, 5]
        assert 0 <= found["max_ratio"] <= found["tolerance"]
        output = Path(found["output"])
        assert output.exists() and found["bytes"] > 4 * found["params"]

    def test_it_writes_what_it_is_told_to_and_says_how_to_use_it(
        self, asked: ExportRequest, tmp_path: Path
    ) -> None:
        module = registry.load(self.room, self.named())
        assert module.FILE and Path(module.FILE).name == module.FILE
        module.check(asked)
        path = tmp_path / "there" / module.FILE
        path.parent.mkdir()
        module.write(asked, path)
        assert [found.name for found in path.parent.iterdir()] == [module.FILE]
        lines = module.hint(path, asked)
        assert lines and all(line and "\n" not in line for line in lines)
