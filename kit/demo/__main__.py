"""Command: python -m kit.demo MODEL [MODEL ...], a page on this machine until Ctrl-C."""

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from kit.demo.models import LEAST_SCORE, MOST_SCORE, Model, open_models
from kit.deploy.runtimes import Runtime

HOST, PORT = "127.0.0.1", 7860


def main(arguments: Sequence[str] | None = None) -> int:
    """2 if a model cannot be opened, the port is taken or Gradio is missing."""
    options = command().parse_args(arguments)
    try:
        check(options)
        with open_port(options.host, options.port) as listener:
            print(f"opening {', '.join(options.models)}", flush=True)
            models = open_models(options.models, options.runtime, options.device)
            for model in models:
                print(f"{model.name}: {model.about}")
            if options.host != HOST:
                print(f"whoever reaches {options.host} can use this page: it has no password")
            print(f"http://{options.host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
            show(models, listener, options)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def command() -> argparse.ArgumentParser:
    about = "A page in the browser: drop an image or a video, and see what one or two models find."
    parser = argparse.ArgumentParser(prog="python -m kit.demo", description=about)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="checkpoint, .onnx, .xml or .engine")
    parser.add_argument("--runtime", choices=get_args(Runtime), help="of all models; left out: the best for each file")
    parser.add_argument("--device", help="cpu or cuda; left out: the GPU where there is one")
    parser.add_argument("--threshold", type=float, default=0.4, help="that the page starts with (0.4)")
    parser.add_argument("--frames", type=int, default=600, help="at most so many of a video (600)")
    parser.add_argument("--upload-mib", type=int, default=200, help="the largest file that is taken (200)")
    parser.add_argument("--host", default=HOST, help=f"address to listen at; {HOST} (default) is this machine alone")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes any that is free ({PORT})")
    return parser


def check(options: argparse.Namespace) -> None:
    """Before anything takes time."""
    if find_spec("gradio") is None:
        raise ImportError("the page needs Gradio: pip install -e '.[demo]'")
    if not LEAST_SCORE <= options.threshold <= MOST_SCORE:
        raise ValueError(f"--threshold must be {LEAST_SCORE} to {MOST_SCORE}, got {options.threshold}")
    if min(options.frames, options.upload_mib) < 1:
        raise ValueError(f"--frames and --upload-mib must be at least 1, got {options.frames} and {options.upload_mib}")


def open_port(host: str, port: int) -> socket.socket:
    """Listening, so that a visitor who comes early waits; port 0 takes any that is free."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ValueError(f"{host}:{port}: expected a free port, found: {error}; give another by --port") from error


def show(models: list[Model], listener: socket.socket, options: argparse.Namespace) -> None:
    """Until Ctrl-C. All that visitors leave lies in one folder, which goes with the page."""
    with tempfile.TemporaryDirectory(prefix="kit_demo_") as folder:
        uploads, videos = Path(folder) / "uploads", Path(folder) / "videos"
        videos.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # read when Gradio is imported
        from kit.demo.page import build_page
        from kit.demo.server import serve

        serve(build_page(models, videos, options.threshold, options.frames), listener, options.upload_mib)


if __name__ == "__main__":
    sys.exit(main())
