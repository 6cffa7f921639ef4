"""The studio in an installation that cannot be written, for a user without a home."""

import pytest
import soundfile
from conftest import write_tone
from read_only import sealed_environment
from served_studio import ROOT, handle, serving
from served_studio import model_dir as model_dir  # A fixture.

pytestmark = pytest.mark.studio


def test_the_studio_starts_and_translates_where_nothing_can_be_kept(tmp_path, model_dir):
    import gradio_client

    sealed = sealed_environment(tmp_path)
    write_tone(tmp_path / "a.wav", seconds=1.0)
    variables = {
        "HOME": sealed["HOME"],
        "PYTHONPATH": f"{tmp_path / 'offline'}:{tmp_path}:{ROOT}",
        "JAX_COMPILATION_CACHE_DIR": "",
        "XDG_CACHE_HOME": "",
        "NUMBA_CACHE_DIR": "",
        "MPLCONFIGDIR": "",
    }
    with serving(model_dir, tmp_path, **variables) as (_, url, folder):
        client = gradio_client.Client(url, verbose=False, download_files=str(tmp_path / "got"))
        (path, *_) = client.predict(
            handle(tmp_path / "a.wav"), ["Piano"], 1.0, 3, api_name="/translate"
        )
        assert soundfile.info(path).frames == 8000
        log = (folder / "errors.log").read_text()
    assert "Traceback" not in log, log
    assert not list((tmp_path / "temporary").iterdir())
