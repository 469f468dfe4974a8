import json
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from kit import files
from kit.deploy.about import KEY
from tests.deploy.jetson import model


def saved(path, **metadata):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    content = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [x]))
    for key, value in metadata.items():
        content.metadata_props.add(key=key, value=value)
    onnx.save(content, path)
    return path


def test_the_metadata_is_what_onnx_itself_reads(exported):
    text = {each.key: each.value for each in onnx.load(exported).metadata_props}[KEY]
    assert model.onnx_about(exported) == json.loads(text)


def test_metadata_among_others_is_found(tmp_path):
    path = saved(tmp_path / "a.onnx", other="1", kit='{"format": "kit-export-1", "size": "n"}', more="2")
    assert model.onnx_about(path)["size"] == "n"


@pytest.mark.parametrize("metadata", [{}, {"kit": "{}"}, {"kit": '{"format": "kit-export-9"}'}, {"other": "1"}])
def test_files_of_others_are_refused(tmp_path, metadata):
    with pytest.raises(model.Refused, match=r"a\.onnx: expected an ONNX file of kit\.deploy\.export_onnx"):
        model.onnx_about(saved(tmp_path / "a.onnx", **metadata))


@pytest.mark.parametrize("keep", [1, 100, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, exported, keep):
    path = tmp_path / "a.onnx"
    path.write_bytes(exported.read_bytes()[:keep])
    with pytest.raises(model.Refused, match="it cannot be read"):
        model.onnx_about(path)


def test_what_is_no_protobuf_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x07\x07\x07")
    with pytest.raises(model.Refused, match="it is no protobuf"):
        model.onnx_about(tmp_path / "a.onnx")


def test_fields_of_every_kind_are_read():
    """150 in field 1; two bytes in field 2; eight and four bytes that are passed over."""
    data = b"\x08\x96\x01" + b"\x12\x02ab" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x2a\x00"
    assert list(model.fields(data)) == [(1, None), (2, b"ab"), (3, None), (4, None), (5, b"")]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.bin"
    model.write_whole(path, b"12")
    assert path.read_bytes() == b"12" and model.sha256(path) == files.sha256(path)
    with pytest.raises(TypeError):
        model.write_whole(path, "text")
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_runtime_is_one_line(monkeypatch, exported):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(model.Refused, match=r"onnxruntime is not installed .*: pip install onnxruntime"):
        model.OnnxRunner(exported)
