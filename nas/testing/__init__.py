"""Contracts of parts as classes of tests, for the shipped parts and for yours.

    from nas.testing import SpaceContract

    class TestMine(SpaceContract):
        part = "my_space.py"

`pytest` then runs every test of the contract on that file. Needs pytest.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"nas.testing.{name}"
        for name in ("controllers", "devices", "evaluators", "executors", "exporters", "pruners")
    ),
    "nas.testing.spaces",
)

from nas.testing.contract import Contract, each
from nas.testing.controllers import ControllerContract
from nas.testing.devices import DeviceContract
from nas.testing.evaluators import EvaluatorContract, TrainerContract
from nas.testing.executors import ExecutorContract, ProcessContract
from nas.testing.exporters import ExporterContract
from nas.testing.pruners import PrunerContract
from nas.testing.spaces import SpaceContract

__all__ = [
    "Contract",
    "ControllerContract",
    "DeviceContract",
    "EvaluatorContract",
    "ExecutorContract",
    "ExporterContract",
    "ProcessContract",
    "PrunerContract",
    "SpaceContract",
    "TrainerContract",
    "each",
]
