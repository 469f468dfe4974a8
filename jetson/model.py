"""A detector as kit exports it: what an ONNX file says of itself, and ONNX Runtime to run it with."""

import hashlib
import importlib
import json
import os
import tempfile
from pathlib import Path

EXPORT = "kit-export-1"  # the format of what a file says of itself
INPUTS, OUTPUTS = ("images", "sizes_hw"), ("boxes", "scores", "labels")


class Refused(Exception):
    """Something that the user has to mend, in one line."""


class OnnxRunner:
    """An ONNX file in ONNX Runtime on the CPU."""

    runtime = "onnxruntime"

    def __init__(self, path):
        onnxruntime = module("onnxruntime", "pip install onnxruntime")
        self.about = onnx_about(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        unsound = ["Pad_Fusion"]  # it lets a MaxPool take the zeros of a Pad before it for nothing
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(path), options, providers, disabled_optimizers=unsound)
        self.note = f"ONNX Runtime {onnxruntime.__version__}"

    def __call__(self, images, sizes_hw):
        """images (1, ...) as the file takes them, sizes_hw (1, 2) -> boxes (N, 4) xyxy, scores (N,), labels (N,)."""
        answers = self.session.run(OUTPUTS, dict(zip(INPUTS, (images, sizes_hw), strict=True)))
        return tuple(each[0] for each in answers)


def module(name, mend):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refused(f"{name} is not installed ({error}): {mend}") from error


def onnx_about(path):
    """The metadata `kit`: field 14 of the protobuf, pairs of key and value; no package is needed to read them."""
    try:
        pairs = [dict(fields(pair)) for number, pair in fields(path.read_bytes()) if number == 14]
        about = json.loads(next((pair[2] for pair in pairs if pair.get(1) == b"kit"), b"null"))
    except (OSError, IndexError, KeyError, ValueError) as error:
        raise Refused(f"{path}: expected an ONNX file, it cannot be read ({error}); is it cut off?") from error
    if not isinstance(about, dict) or about.get("format") != EXPORT:
        raise Refused(f"{path}: expected an ONNX file of kit.deploy.export_onnx ({EXPORT}), found another")
    return about


def fields(data):
    """Number and content of each field of a protobuf message; content: bytes, or None of a number."""
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, place = varint(data, place)
            yield number, None
        elif kind == 2:
            length, place = varint(data, place)
            if place + length > len(data):
                raise ValueError("a field reaches over the end")
            yield number, data[place : place + length]
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
            yield number, None
        else:
            raise ValueError("it is no protobuf")


def varint(data, place):
    """A number of 7 bits a byte, the low ones first -> the number, the place after it."""
    value, shift = 0, 0
    while True:
        byte = data[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place


# --- files ---


def write_whole(path, data):
    """Whole or absent, also when the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_json(path):
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: expected JSON, {error}") from error


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
