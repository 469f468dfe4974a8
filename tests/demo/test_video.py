from contextlib import closing
from pathlib import Path

import pytest

from kit.demo.video import follow
from kit.media import video_about


def test_every_frame_is_shown_to_each_model_and_drawn(model, video, tmp_path):
    one, other = model("one.pt"), model("other.pt", scores=[0.9, 0.8])
    steps = list(follow([one, other], video, 0.5, tmp_path, most_frames=100))
    assert [(step.done, step.total) for step in steps] == [(number, 6) for number in range(1, 7)]
    assert [tally.found for tally in steps[-1].tallies] == [{1: 6}, {1: 6, 0: 6}]  # the bus of 0.3 is below 0.5
    assert [len(tally.frames_ms) for tally in steps[-1].tallies] == [6, 6]
    copies = [video_about(tally.copy) for tally in steps[-1].tallies]
    assert [(copy.frames, copy.rate_fps, copy.size_hw) for copy in copies] == [(6, 10, (48, 80))] * 2


def test_a_long_video_is_cut_and_that_is_said(model, video, tmp_path):
    steps = list(follow([model()], video, 0.5, tmp_path, most_frames=4))
    assert steps[-1].is_cut and steps[-1].total == 4 == len(steps)
    assert video_about(steps[-1].tallies[0].copy).frames == 4


def test_a_video_that_is_just_short_enough_is_whole(model, video, tmp_path):
    assert not list(follow([model()], video, 0.5, tmp_path, most_frames=6))[-1].is_cut


def test_who_leaves_early_leaves_no_copy(model, video, tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    with closing(follow([model()], video, 0.5, folder, most_frames=100)) as steps:
        next(steps)
        assert list(folder.iterdir())
    assert list(folder.iterdir()) == []


def test_a_video_that_is_none_is_refused_by_name(model, tmp_path):
    path = tmp_path / "street.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"street\.mp4: expected a video"):
        list(follow([model()], path, 0.5, tmp_path, most_frames=5))


def test_a_video_cut_off_gives_what_it_has_and_says_so(model, shared, tmp_path):
    path = tmp_path / "torn.mp4"
    whole = shared("data/media/video/highway_38_frames_1280x720.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    last = list(follow([model()], path, 0.5, tmp_path, most_frames=100))[-1]
    frames = len(last.tallies[0].frames_ms)
    assert 0 < frames < 38 and last.faults and "torn.mp4" in last.faults[0]
    assert video_about(Path(last.tallies[0].copy)).frames == frames
