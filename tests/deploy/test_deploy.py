from importlib import import_module

import pytest

import kit.deploy


def test_every_name_is_found_where_it_is_said_to_be() -> None:
    assert sorted(kit.deploy.HOMES) == sorted(kit.deploy.__all__) == dir(kit.deploy)
    for name, home in kit.deploy.HOMES.items():
        assert getattr(kit.deploy, name) is getattr(import_module(home), name)


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match=r"kit\.deploy has no 'export_onyx'; it has build_tensorrt, export_onnx"):
        _ = kit.deploy.export_onyx
