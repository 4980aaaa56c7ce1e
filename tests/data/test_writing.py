from drawjax.data.writing import note_left_out


def test_of_many_files_five_are_named(caplog):
    notes = ["before"]
    note_left_out(notes, "mine", {"odd": list("abcdef"), "even": list("vwxyz"), "none": []})
    said = "mine: left out 11: 6 odd (a, b, c, d, e, ...); 5 even (v, w, x, y, z)."
    assert notes == ["before", said]
    assert said in caplog.text
    note_left_out(notes, "mine", {"none": []})
    assert len(notes) == 2
