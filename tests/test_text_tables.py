from umt_jax import text_tables


def test_numbers_stand_below_each_other_and_no_line_ends_in_spaces():
    rows = [("Flûte", 7, "1.50", "built"), ("音", 1200, "010", "")]
    table = text_tables.aligned(("domain", "tracks", "minutes", ""), rows, last="left")
    assert table.splitlines() == [
        "domain  tracks  minutes",
        "Flûte        7     1.50  built",
        "音         1200      010",
    ]
    assert text_tables.aligned(("", "x"), [("a", "1"), ("b", "10")]) == "    x\na   1\nb  10"


def test_a_table_in_markdown_has_its_cells_as_they_were_given():
    head, rule, *lines = text_tables.markdown(("a", "b"), [("1e5", 2), ("", "0.50")]).splitlines()
    assert set(rule) == set("|-")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, *lines)]
    assert cells == [["a", "b"], ["1e5", "2"], ["", "0.50"]]
