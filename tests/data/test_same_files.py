from kit.data.same_files import same_content


def test_files_of_the_same_bytes_point_to_the_first_of_them(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d", "missing")]
    for path, text in zip(paths, ("one", "two", "one", "three", ""), strict=False):
        path.write_text(text)
    paths[4].unlink()
    assert same_content([*paths, None]).tolist() == [0, 1, 0, 3, 4, 5]


def test_no_file_is_nothing():
    assert same_content([]).tolist() == []
