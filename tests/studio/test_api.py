"""The HTTP API of the studio. One server for all tests."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_tone
from served_studio import MAX_SECONDS, OWN, PATIENCE_S, ROOT, handle
from served_studio import inferred as inferred  # Fixtures, this one and the next three.
from served_studio import model_dir as model_dir
from served_studio import server as server
from served_studio import whistle as whistle

pytestmark = pytest.mark.studio


@pytest.fixture(scope="module")
def client(server):
    import gradio_client

    return gradio_client.Client(server, verbose=False)


def test_nothing_sent_gets_a_sentence(client):
    with pytest.raises(Exception, match="^There is no sound yet. Drop a file, or record something"):
        client.predict(None, ["Cello"], 1.0, 0, api_name="/translate")


def test_the_api_gives_the_samples_of_infer(client, whistle, inferred):
    arguments = (handle(whistle), ["Cello", "Piano"], OWN.temperature, 3)
    paths = client.predict(*arguments, api_name="/translate")
    assert [Path(path).name for path in paths] == ["my whistle.Cello.wav", "my whistle.Piano.wav"]
    for path, expected in zip(paths, inferred.values(), strict=True):
        np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], expected)


def test_a_blend_without_the_second_sound_is_the_translation_of_the_first(
    client, whistle, inferred
):
    arguments = (handle(whistle), handle(whistle), 0.0, "Piano", OWN.temperature, 3)
    (path,) = client.predict(*arguments, api_name="/blend")
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], inferred["Piano"])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.touch(), "a.wav is empty."),
        (lambda path: path.write_text("not a sound " * 99), "a.wav is damaged, cut off or not"),
        (lambda path: soundfile.write(path, np.zeros(8000), 8000), "a.wav is silent: "),
        (
            lambda path: write_tone(path, seconds=MAX_SECONDS + 1),
            f"a.wav is longer than {MAX_SECONDS} s, the most that is taken here. Cut it first.",
        ),
    ],
)
def test_what_is_no_sound_to_translate_gets_a_sentence(client, tmp_path, write, sentence):
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(Exception, match="^" + re.escape(sentence)):
        client.predict(handle(path), ["Cello"], 1.0, 0, api_name="/translate")


def test_no_file_of_the_server_can_be_read(server, client, model_dir, whistle):
    import httpx

    secret = next(model_dir.glob("checkpoints/*/config/metadata"))
    for path in ("/etc/passwd", str(secret), str(whistle), f"{ROOT}/README.md"):
        for route in (f"file={path}", f"file=//{path}", f"file=./../../../../../../..{path}"):
            response = httpx.get(f"{server}gradio_api/{route}")
            assert response.status_code in (403, 404), route
    # Nor have it read as a sound, which the whistle is one of.
    from gradio_client import utils

    assert utils.is_file_obj(sound := {"path": str(whistle), "meta": {"_type": "gradio.FileData"}})
    call = httpx.post(
        f"{server}gradio_api/call/translate", json={"data": [sound, ["Cello"], 1.0, 0]}
    )
    answer = httpx.get(
        f"{server}gradio_api/call/translate/{call.json()['event_id']}", timeout=PATIENCE_S
    ).text
    assert "event: error" in answer
    assert "event: complete" not in answer
    # Nor past the queue.
    skipped = httpx.post(f"{server}gradio_api/run/translate", json={"data": [sound, [], 1.0, 0]})
    assert skipped.status_code == 404
