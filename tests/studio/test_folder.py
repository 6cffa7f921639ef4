"""How much users of the studio may send, and how it goes."""

import os
import time

import pytest

from umt_jax.studio import checks
from umt_jax.studio import folder as studio_folder

LIMITS = studio_folder.Limits(file_bytes=100, client_bytes=1000, total_bytes=5000)


@pytest.fixture
def folder(tmp_path):
    return studio_folder.StudioFolder(tmp_path / "studio", LIMITS)


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(studio_folder.time, "monotonic", lambda: now[0])
    return now


def refused(call, *arguments):
    with pytest.raises(studio_folder.NoRoomError) as error:
        call(*arguments)
    return error.value.status, str(error.value)


def test_a_client_may_send_so_much_within_an_hour_and_others_are_not_held_up(folder, clock):
    for _ in range(10):
        folder.take("10.0.0.1", 100)
        clock[0] += 60.0
    folder.take("10.0.0.1", 0)
    status, sentence = refused(folder.take, "10.0.0.1", 1)
    assert status == 429 and "came from this address within an hour" in sentence
    folder.take("10.0.0.2", 1000)
    # The first hundred was sent an hour ago.
    clock[0] = 3601.0
    folder.take("10.0.0.1", 50)


def test_addresses_of_one_network_of_version_6_are_one_client(folder):
    for number in range(10):
        folder.take(f"2001:db8::{number:x}", 100)
    refused(folder.take, "2001:db8::ffff", 1)
    folder.take("2001:db8:0:1::1", 1000)


def test_what_all_users_have_is_limited_whoever_wrote_it(folder, clock):
    with open(os.path.join(folder.served, "made.wav"), "wb") as file:
        file.write(bytes(4950))
    folder.check_room(50)
    assert refused(folder.check_room, 51)[0] == 507
    os.unlink(file.name)
    clock[0] += 2.0
    folder.check_room(51)


def test_a_disk_that_is_nearly_full_is_named(folder, monkeypatch):
    usage = type("Usage", (), {"free": studio_folder._FREE_BYTES + 99})
    monkeypatch.setattr(studio_folder.shutil, "disk_usage", lambda folder: usage)
    folder.check_room(99)
    assert refused(folder.check_room, 100) == (507, "The studio's disk is full. Try again later.")


def test_old_files_and_folders_go_and_new_ones_stay(folder):
    old = time.time() - LIMITS.keep_seconds - 1
    for place in (folder.served, folder.temporary):
        for name in ("old", "new"):
            os.makedirs(os.path.join(place, name))
            for file in ("old.wav", "new.wav"):
                path = os.path.join(place, name, file)
                open(path, "w").close()
                if "old" in (name, file[:3]):
                    os.utime(path, (old, old))
            if name == "old":
                os.utime(os.path.join(place, name), (old, old))
        os.utime(place, (old, old))
    folder.clean()
    folder.clean()
    for place in (folder.served, folder.temporary):
        assert "new" in os.listdir(place)
        assert os.listdir(os.path.join(place, "new")) == ["new.wav"]
        assert not os.path.exists(os.path.join(place, "old", "old.wav"))


INPUTS = [
    checks.sound("Sound", "/served"),
    checks.some_of("Domains", ["Cello", "Piano"]),
    checks.number("Temperature", 0.0, 2.0),
    checks.seed("Seed"),
]
SOUND = {"path": "/served/abc/a.wav", "meta": {"_type": "gradio.FileData"}}
RIGHT = [SOUND, ["Cello"], 1.0, 0]
WRONG = {
    0: [7, "a.wav", [], {}, True, {"path": None}, {"path": "/etc/passwd"}, {"path": "a.wav"}]
    + [{"path": "/served/../etc/passwd"}, {"path": "http://example.org/a.wav"}]
    + [{"path": "/served/a\0.wav"}],
    1: [None, "Cello", 3, {}, ["Drum"], [["Cello"]], [None], [1]],
    2: [None, "1", [], {}, True, -0.1, 2.1, float("nan"), float("inf"), 10**400],
    3: [None, "0", [], {}, True, 0.5, -1, 2**31, float("nan"), float("inf"), 10**400],
}


def test_right_values_pass():
    checks.check(INPUTS, RIGHT)
    checks.check(INPUTS, [None, [], 0, 2**31 - 1])
    checks.check(INPUTS, [SOUND, ["Piano", "Cello"], 2, 3.0])


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in WRONG.items() for value in values]
)
def test_each_wrong_value_gets_a_sentence_that_says_what_is_wanted(place, value):
    values = list(RIGHT)
    values[place] = value
    with pytest.raises(ValueError) as error:
        checks.check(INPUTS, values)
    sentence = str(error.value)
    assert sentence.startswith(f"{INPUTS[place].label}: ")
    assert sentence.endswith(f" is not {INPUTS[place].wanted}.")
    assert len(sentence) < 250


@pytest.mark.parametrize("values", [None, "abc", {}, 3, [], RIGHT[:3], [*RIGHT, 1]])
def test_a_wrong_number_of_values_gets_a_sentence(values):
    with pytest.raises(ValueError, match="^The 4 values Sound, Domains, Temperature, Seed are"):
        checks.check(INPUTS, values)
