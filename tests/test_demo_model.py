import pytest

from umt_jax import demo_model


def test_a_copy_without_the_model_says_what_to_pass_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_model, "_FOLDER", tmp_path / "demo")
    with pytest.raises(FileNotFoundError, match=r"Pass --checkpoint=DIR.*make demo"):
        demo_model.path()
    (tmp_path / "demo").mkdir()
    assert demo_model.path() == str(tmp_path / "demo")
