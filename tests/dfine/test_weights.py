import re
from pathlib import Path

import pytest
import torch

from kit.dfine.detector import PUBLISHED_NAMES, Detector
from kit.dfine.weights import load_detector, load_weights, own_names, renamed, save_weights
from tests.dfine import official


def same(a: Detector, b: Detector) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("size", ["n", "s"])
def test_published_names_and_ours_are_one_to_one(size: str) -> None:
    published = official.state_dict(size, 5)
    ours = own_names(published)
    state = {name: value for name, value in Detector(size, 5).state_dict().items() if "num_batches" not in name}
    assert {name: tuple(value.shape) for name, value in ours.items()} == {n: tuple(v.shape) for n, v in state.items()}


def test_every_line_of_the_name_table_is_used() -> None:
    used = set()
    projected = "decoder.input_proj.0.conv.weight"  # size x alone
    for name in [*official.state_dict("n", 5), projected]:
        for pattern, ours in PUBLISHED_NAMES:
            used |= {pattern} if re.search(pattern, name) else set()
            name = re.sub(pattern, ours, name)
    assert {pattern for pattern, _ in PUBLISHED_NAMES} == used
    assert renamed(projected) == "decoder.project.0.conv.weight"


@pytest.mark.parametrize("wrap", ["plain", "model", "ema"])
def test_an_official_checkpoint_loads_in_each_of_its_forms(wrap: str, tmp_path: Path) -> None:
    tensors = official.state_dict("n", 5)
    other = {name: value * 0 for name, value in tensors.items()}
    content = {
        "plain": tensors,
        "model": {"model": tensors, "last_epoch": 3},
        "ema": {"model": other, "ema": {"module": tensors, "updates": 7}, "last_epoch": 3},
    }[wrap]
    torch.save(content, tmp_path / "official.pth")
    detector = Detector("n", 5)
    load_weights(detector, tmp_path / "official.pth")
    assert torch.equal(detector.decoder.selection.score.weight, tensors["decoder.enc_score_head.weight"])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_our_own_file_comes_back(suffix: str, tmp_path: Path) -> None:
    detector, other = Detector("n", 2), Detector("n", 2)
    report = load_weights(other, save_weights(detector, tmp_path / f"weights{suffix}", {"classes": ["a", "b"]}))
    weights = (detector.decoder.score[0].weight, other.decoder.score[0].weight)
    assert report.info["size"] == "n" and report.info["classes"] == ["a", "b"] and report.replaced == ()
    assert same(detector, other) if suffix == ".pt" else torch.allclose(*weights, atol=1e-3)


def test_a_file_url_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, other = Detector("n", 2), Detector("n", 2)
    path = save_weights(detector, tmp_path / "weights.pt")
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: path.open("rb"))
    load_weights(other, "https://example.org/weights.pt?download=true")
    assert same(detector, other)


def test_a_hub_id_is_fetched_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, other = Detector("n", 2), Detector("n", 2)
    save_weights(detector, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda hub_id, allow_patterns: str(tmp_path))
    load_weights(other, "owner/dfine-nano")
    assert torch.allclose(detector.decoder.score[0].weight, other.decoder.score[0].weight, atol=1e-3)


def test_heads_of_another_class_count_start_anew_and_it_is_said(tmp_path: Path) -> None:
    detector, other = Detector("n", 4), Detector("n", 2)
    start = other.decoder.score[0].weight.clone()
    report = load_weights(other, save_weights(detector, tmp_path / "weights.pt"))
    assert len(report.replaced) == 9 and "decoder.score.0.weight" in str(report)  # 4 heads of two, and the embedding
    assert torch.equal(other.decoder.score[0].weight, start)
    assert torch.equal(other.decoder.edges[0].layers[0].weight, detector.decoder.edges[0].layers[0].weight)


@pytest.mark.parametrize("channels", [1, 4])
def test_colour_weights_serve_grey_and_four_channels(channels: int, tmp_path: Path) -> None:
    detector = Detector("n", 2, channels=channels)
    report = load_weights(detector, save_weights(Detector("n", 2), tmp_path / "weights.pt"))
    assert report.adapted == ("backbone.stem.stem1.conv.weight",)


def test_another_size_is_refused_by_name_and_nothing_changes(tmp_path: Path) -> None:
    torch.save(official.state_dict("n", 5), tmp_path / "n.pth")
    detector = Detector("s", 5)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)n.pth.*missing: .*encoder.*of another shape: .*expected \(.*found \("):
        load_weights(detector, tmp_path / "n.pth")
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", b"PK\x03\x04cut off"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_broken_file_is_one_clear_error(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix}: expected a weights file"):
        load_weights(Detector("n", 2), path)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a checkpoint must not run code",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"hostile\.pth: expected a weights file"):
        load_weights(Detector("n", 2), tmp_path / "hostile.pth")
    assert capsys.readouterr().out == ""


def test_a_missing_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.pth: expected a weights file, found nothing"):
        load_weights(Detector("n", 2), tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "about",
    [{"size": "xxl"}, {"size": []}, {"num_classes": 10**9}, {"num_classes": True}, {"channels": 2}, {"channels": "3"}],
)
def test_what_a_file_says_of_itself_is_checked_before_memory_is_taken(about: dict[str, object], tmp_path: Path) -> None:
    path = save_weights(Detector("n", 2), tmp_path / "weights.pt", about)
    with pytest.raises(ValueError, match=r"weights\.pt: expected size of n, s, m, l, x, num_classes of 1 to"):
        load_detector(path)


def test_a_detector_with_heads_left_at_random_is_refused(tmp_path: Path) -> None:
    path = save_weights(Detector("n", 2), tmp_path / "weights.pt", {"num_classes": 3})
    with pytest.raises(
        ValueError, match=r"weights\.pt: expected weights of 3 classes and 3 channels, as it says, found"
    ):
        load_detector(path)
