import pytest

from kit.data.category_table import CategoryTable, read_category_table


def test_what_a_data_set_says_goes_before_what_is_said_of_all(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("Van: Car\nMisc: null\nkitti: {Van: Truck}\n")
    table = read_category_table(path)
    assert [table.target(*each) for each in (("a", "Van"), ("kitti", "Van"), ("a", "Misc"), ("a", "Bus"))] == [
        "Car",
        "Truck",
        None,
        "Bus",
    ]


def test_csv_says_the_same_as_yaml(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("data_set,category,target\n,Van,Car\n,Misc,\nkitti,Van,Truck\n")
    assert read_category_table(path).targets == {("", "Van"): "Car", ("", "Misc"): None, ("kitti", "Van"): "Truck"}
    assert read_category_table(path, drops_unlisted=True).target("a", "Bus") is None


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.yaml", "- a", "expected a table of categories, found list"),
        ("t.yaml", "a: 3", "a: expected a name or null, found 3"),
        ("t.yaml", "a: b\na: c", "key given twice"),
        ("t.csv", "from,to\na,b", "expected the columns category and target, found from, to"),
        ("t.csv", "category,target\na,b\na,c", "row 3: expected each category once"),
        ("t.csv", "category,target\na", "row 2: expected each category once with its target"),
    ],
)
def test_a_broken_table_is_refused_in_words(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_category_table(tmp_path / name)


def test_misspelt_rows_are_refused():
    names = {"kitti": ["Car", "Van"]}
    with pytest.raises(ValueError, match="got 'Vam'; did you mean Van"):
        CategoryTable({("", "Vam"): "Car"}).refuse_unknown(names)
    with pytest.raises(ValueError, match="expected data sets kitti, got 'kiti'"):
        CategoryTable({("kiti", "Van"): "Car"}).refuse_unknown(names)
    CategoryTable({("kitti", "Van"): "Car"}).refuse_unknown(names)
