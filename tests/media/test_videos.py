from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kit.media import Frame, Unreadable, VideoWriter, video_about, video_frames
from kit.media.videos import pyav

COUNT = 30


def picture(place: int, size_hw: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Blocks of colour that wander, so that no frame is small."""
    blocks = np.random.default_rng(0).integers(0, 256, (size_hw[0] // 8, size_hw[1] // 8, 3), np.uint8)
    return np.roll(blocks.repeat(8, 0).repeat(8, 1), 4 * place, 1)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "street.mp4", 25) as writer:
        for place in range(COUNT):
            writer.write(picture(place))
    return tmp_path / "street.mp4"


def packets(path: Path) -> list[tuple[int, int]]:
    """Place in the file and size of each."""
    with pyav().open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def faults(frames: list[Frame]) -> dict[int, str]:
    found = {}
    for frame in frames:
        try:
            frame.load(3)
        except Unreadable as error:
            found[frame.index] = str(error)
    return found


def test_what_is_written_is_read_again(video: Path):
    frames = list(video_frames(video))
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [frame.time_s for frame in frames] == pytest.approx([place / 25 for place in range(COUNT)])
    assert {(frame.name, frame.kind, frame.path) for frame in frames} == {("street.mp4", "video", video)}
    for place in (0, 17, 29):
        assert np.abs(frames[place].load(3).astype(int) - picture(place)).mean() < 12  # lossy, colours at half size
    assert frames[0].load(1).shape == (96, 128, 1)
    assert video_about(video).frames == COUNT and video_about(video).rate_fps == 25
    assert video_about(video).size_hw == (96, 128)


def test_each_third_frame(video: Path):
    frames = list(video_frames(video, every=3))
    assert [frame.index for frame in frames] == list(range(0, COUNT, 3))
    assert np.abs(frames[2].load(3).astype(int) - picture(6)).mean() < 12


def test_frames_come_one_by_one(video: Path):
    frames = video_frames(video)
    assert next(frames).index == 0
    frames.close()
    video.unlink()


def test_a_broken_frame_is_told_and_those_after_it_are_read(video: Path):
    place, size = packets(video)[10]
    data = bytearray(video.read_bytes())
    data[place : place + size] = bytes(size)
    video.write_bytes(data)
    frames = list(video_frames(video))
    assert [frame.index for frame in frames] == list(range(COUNT))
    broken = faults(frames)
    assert 1 <= len(broken) <= 3
    assert all(f"street.mp4: frame {index} at " in fault for index, fault in broken.items())
    assert frames[-1].time_s == pytest.approx(29 / 25)


def test_without_its_first_frame_nothing_of_it_is_silently_left_out(video: Path):
    place, size = packets(video)[0]
    data = bytearray(video.read_bytes())
    data[place : place + size] = bytes(size)
    video.write_bytes(data)
    assert sorted(faults(list(video_frames(video)))) == list(range(COUNT))


def test_a_video_that_is_cut_off_says_so_at_its_end(video: Path):
    place, _ = packets(video)[20]
    video.write_bytes(video.read_bytes()[:place])
    frames = list(video_frames(video))
    broken = faults(frames)
    assert len(frames) - len(broken) >= 16
    assert "and all after it are missing: expected 30, found 2" in broken[frames[-1].index]


@pytest.mark.parametrize("content", [b"", b"hello" * 50])
def test_what_is_no_video_is_one_fault(tmp_path: Path, content: bytes):
    (tmp_path / "a.mp4").write_bytes(content)
    (frame,) = video_frames(tmp_path / "a.mp4", name="deep/a.mp4")
    assert frame.name == "deep/a.mp4"
    with pytest.raises(Unreadable, match=r"a\.mp4: expected a video, ") as error:
        frame.load(3)
    assert "\n" not in str(error.value)
    with pytest.raises(Unreadable, match="expected a video"):
        video_about(tmp_path / "missing.mp4")


@pytest.mark.parametrize(("a", "b", "quarters"), [(0, 1, -1), (-1, 0, 2), (0, -1, 1)])
def test_a_video_filmed_sideways_is_turned_upright(video: Path, a: int, b: int, quarters: int):
    """The matrix in the head of its track says how it is to be shown; a, b, -b, a as 16.16 numbers."""
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    for row, value in enumerate((a * one, b * one, 0, -b * one, a * one, 0)):
        data[matrix + 4 * row : matrix + 4 * row + 4] = value.to_bytes(4, signed=True)
    video.write_bytes(data)
    frame = next(iter(video_frames(video)))
    assert np.abs(frame.load(3).astype(int) - np.rot90(picture(0), quarters)).mean() < 12
    assert video_about(video).size_hw == ((128, 96) if quarters % 2 else (96, 128))
    assert next(iter(video_frames(video, exif=False))).load(3).shape == (96, 128, 3)


def test_odd_sides_lose_a_row_and_other_sizes_are_made_to_fit(tmp_path: Path):
    with VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        writer.write(picture(0)[:95, :127])
        writer.write(picture(1, (48, 64)))
    frames = [frame.load(3) for frame in video_frames(tmp_path / "a.mp4")]
    assert [frame.shape for frame in frames] == [(94, 126, 3)] * 2
    assert video_about(tmp_path / "a.mp4").rate_fps == pytest.approx(Fraction(30000, 1001))


def test_a_video_that_is_broken_off_leaves_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(picture(0))
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="expected at least one frame"), VideoWriter(tmp_path / "a.mp4", 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_browsers_find_the_index_at_the_beginning(video: Path):
    data = video.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_its_absence_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("kit.media.videos.import_module", missing)
    with pytest.raises(ImportError, match=r"videos need PyAV: pip install -e '\.\[media\]'"):
        next(video_frames("a.mp4"))


def test_real_videos_are_read_to_their_last_frame(shared: Callable[[str], Path]):
    for name, count in (("highway_38_frames_1280x720", 38), ("traffic_intersection_252_frames_960x540", 252)):
        path = shared(f"data/media/video/{name}.mp4")
        frames = [(frame.index, frame.time_s) for frame in video_frames(path)]
        assert len(frames) == count == video_about(path).frames
        assert frames[-1][1] == pytest.approx((count - 1) / float(video_about(path).rate_fps))


def test_a_video_with_a_tag_that_is_no_text_is_one_fault(video: Path, tmp_path: Path):
    data = video.read_bytes()
    start = data.index(b"Lavf")  # the name of the encoder, a tag of the container
    (tmp_path / "a.mp4").write_bytes(data[:start] + b"\xee\xff" + data[start + 2 :])
    (frame,) = video_frames(tmp_path / "a.mp4")
    with pytest.raises(Unreadable, match=r"a\.mp4: expected a video, 'utf-8' codec"):
        frame.load(3)
