import pytest
from conftest import write_tone
from etils import epath
from test_build import content, last_line, run_command

from data_prep import build


def test_datasets_are_never_built_among_the_recordings(tmp_path):
    write_tone(tmp_path / "music" / "Piano" / "a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "music")
    before = content(tmp_path / "music")
    finished = run_command(tmp_path / "music", tmp_path / "music" / "data")
    assert finished.returncode == 1 and content(tmp_path / "music") == before
    message = f"error: --data_dir={tmp_path}/music/data lies in --audio_dir={tmp_path}/music, "
    assert last_line(finished.stderr).startswith(message)

    music = epath.Path(tmp_path / "music")
    for within in ("music", "link", "link/Piano/data", "music/../music/a", "nowhere/../link"):
        with pytest.raises(ValueError, match=r" lies in --audio_dir=.*Nothing was changed"):
            build.check_folders(music, epath.Path(tmp_path / within))
    for beside in ("data", "music_data", "nowhere/data", "music/../data"):
        build.check_folders(music, epath.Path(tmp_path / beside))
