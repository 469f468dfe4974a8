"""Files with the inputs and outputs of every export that compute next to nothing: answers to be checked by hand."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from kit.deploy.about import KEY, About

ABOUT = About(size="n", names=["a", "b"], category_ids=[1, 2], channels=3, height_px=64, width_px=32, top_k=1)

AXES = {"all": [1, 2, 3], "one": [1]}


def small_onnx(path: Path, **changes: object) -> Path:
    """One box an image: (height, width, height, width) as given, its score the mean of the image, its label 0.

    changes: of ABOUT.
    """
    about = replace(ABOUT, **changes)
    is_uint8, batch = about.input == "uint8", about.batch or "batch"
    size = ["height", "width"] if about.dynamic_size else [*about.size_hw]
    shape = [batch, *size, about.channels] if is_uint8 else [batch, about.channels, *size]
    axes = [
        helper.make_tensor(name, TensorProto.INT64, [len(of)], of) for name, of in (("all", [1, 2, 3]), ("one", [1]))
    ]
    full = helper.make_tensor("full", TensorProto.FLOAT, [], [255.0 if is_uint8 else 1.0])
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "full"], ["shares"]),
        helper.make_node("ReduceMean", ["shares", "all"], ["means"], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "one"], ["scores"]),
        helper.make_node("Sub", ["scores", "scores"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["labels"], to=TensorProto.INT32),
        helper.make_node("Concat", ["sizes_hw", "sizes_hw"], ["corners"], axis=1),
        helper.make_node("Unsqueeze", ["corners", "one"], ["boxes"]),
    ]
    kinds = {"images": TensorProto.UINT8 if is_uint8 else TensorProto.FLOAT, "labels": TensorProto.INT32}
    shapes = {
        "images": shape,
        "sizes_hw": [batch, 2],
        "boxes": [batch, 1, 4],
        "scores": [batch, 1],
        "labels": [batch, 1],
    }
    values = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), of) for name, of in shapes.items()
    ]
    graph = helper.make_graph(nodes, "small", values[:2], values[2:], [*axes, full])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=KEY, value=about.as_json())
    onnx.save(model, str(path))
    return path
