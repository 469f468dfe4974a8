import sys

import pytest

from kit.demo.__main__ import main, open_port


def test_a_model_that_is_not_there_is_an_error_of_one_line(capsys, tmp_path):
    assert main([str(tmp_path / "nowhere.onnx"), "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "nowhere.onnx" in error and error.count("\n") == 1


def test_without_gradio_it_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["any.pt", "--port", "0"]) == 2
    assert capsys.readouterr().err == "error: the page needs Gradio: pip install -e '.[demo]'\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--threshold", "0.04"), ("--threshold", "1"), ("--frames", "0"), ("--upload-mib", "0")]
)
def test_an_option_out_of_its_range_is_refused_before_a_model_is_opened(capsys, option, value):
    assert main(["nowhere.pt", option, value]) == 2
    error = capsys.readouterr().err
    assert option in error and "got" in error and "nowhere" not in error


def test_a_port_that_is_taken_is_named():
    with open_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127\.0\.0\.1:{port}: expected a free port, found: .*--port"):
            open_port("127.0.0.1", port)


def test_a_port_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="--port must be 0 to 65535, got 65536"):
        open_port("127.0.0.1", 65536)
