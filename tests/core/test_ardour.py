"""A session of Ardour with the plug-in in it, opened and rendered by Ardour, without a screen."""

import os
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from tones import glide

RATE_HZ, SECONDS = 48_000, 2
SUPERCLOCKS = 282_240_000
"""Of a second, in which Ardour 7 counts."""
SETTINGS = {"domain": 2, "temperature": 0, "wet": 0, "level": -6}

MAKE = """
AudioEngine:set_backend("None (Dummy)", "", "")
local session = create_session("{folder}", "umt", {rate})
local tracks = session:new_audio_track(
  1, 1, nil, 1, "voice", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
for track in tracks:iter() do
  local plugin = ARDOUR.LuaAPI.new_plugin(
    session, "urn:umt_jax:translator", ARDOUR.PluginType.LV2, "")
  assert(track:add_processor_by_index(plugin, 0, nil, true) == 0)
  for index, value in ipairs({{ {values} }}) do
    assert(ARDOUR.LuaAPI.set_processor_param(track:nth_plugin(0), index - 1, value))
  end
end
session:save_state("")
close_session()
"""
OPEN = """
AudioEngine:set_backend("None (Dummy)", "", "")
local session = load_session("{folder}", "umt")
for route in session:get_routes():iter() do
  local plugin = route:nth_plugin(0)
  if not plugin:isnil() then
    -- The dummy engine runs, so that the plug-in reports the delay of the session's model.
    for _ = 1, 100 do
      if plugin:to_insert():signal_latency() > 0 then break end
      ARDOUR.LuaAPI.usleep(100000)
    end
    print("found", plugin:to_insert():plugin(0):name(), plugin:to_insert():signal_latency())
    for index = 0, 3 do print("value", (ARDOUR.LuaAPI.get_processor_param(plugin, index))) end
  end
end
close_session()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("ardour7-lua") is None, reason="needs Ardour 7 (Debian: apt install ardour)"
    ),
]


def ardour(bundle, home, *command):
    """Returns what a program of Ardour prints, without a screen and in a home of its own."""
    environment = {**os.environ, "LV2_PATH": str(bundle.parent), "HOME": str(home)}
    environment.pop("DISPLAY", None)
    finished = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout + finished.stderr


def run_script(bundle, folder, text, **values):
    path = folder.parent / "script.lua"
    path.write_text(text.format(folder=folder, **values))
    return ardour(bundle, folder.parent / "home", "ardour7-lua", str(path))


def add_sound(folder, waveform):
    """Puts a recording on the track, from the beginning, as importing it would."""
    soundfile.write(
        folder / "interchange" / "umt" / "audiofiles" / "in.wav", waveform, RATE_HZ, subtype="FLOAT"
    )
    tree = ElementTree.parse(folder / "umt.ardour")
    session, end = tree.getroot(), f"a{SUPERCLOCKS * SECONDS}"
    add = ElementTree.SubElement
    source = {"name": "in.wav", "type": "audio", "id": "9001", "channel": "0", "gain": "1"}
    add(session.find("Sources"), "Source", {**source, "take-id": "", "flags": "", "origin": ""})
    for parent, number in (("Regions", "9002"), ("Playlists/Playlist", "9003")):
        region = {"name": "in", "id": number, "type": "audio", "channels": "1", "muted": "0"}
        region |= {"start": "a0", "length": f"{end}@a0", "sync-position": "a0", "opaque": "1"}
        region |= {"source-0": "9001", "master-source-0": "9001", "scale-amplitude": "1"}
        region |= {"whole-file": "01"[parent == "Regions"], "stretch": "1", "shift": "1"}
        region |= {"fade-in-active": "0", "fade-out-active": "0"}
        region |= {"default-fade-in": "0", "default-fade-out": "0"}
        add(session.find(parent), "Region", region)
    location = {"id": "9004", "name": "session", "start": "a0", "end": end, "locked": "0"}
    add(session.find("Locations"), "Location", {**location, "flags": "IsSessionRange"})
    tree.write(folder / "umt.ardour", encoding="UTF-8", xml_declaration=True)


def export(bundle, folder):
    """Returns what Ardour renders of the session, [T], from the master's first channel."""
    path = folder.parent / "out.wav"
    command = ["ardour7-export", "-b", "float", "-o", str(path), str(folder), "umt"]
    ardour(bundle, folder.parent / "home", *command)
    out, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == RATE_HZ
    return out[:, 0]


def test_a_session_opens_with_its_plugin_and_model_and_is_rendered_on_time(plugins, tmp_path):
    folder, waveform = tmp_path / "umt", glide(RATE_HZ * SECONDS, RATE_HZ)
    made_with, bundle = plugins / "lv2" / "umt.lv2", tmp_path / "lv2" / "umt.lv2"
    values = ", ".join(map(str, SETTINGS.values()))
    run_script(made_with, folder, MAKE, rate=RATE_HZ, values=values)
    # Ardour links the session to the model that it was made with: a bundle without one will do.
    (model,) = (folder / "plugins").glob("*/state*/model.safetensors")
    assert model.resolve() == (made_with / "model.safetensors").resolve()
    shutil.copytree(made_with, bundle, ignore=shutil.ignore_patterns("*.safetensors"))

    add_sound(folder, waveform)
    printed = run_script(bundle, folder, OPEN)
    ((name, latency),) = [
        line.split()[1:] for line in printed.splitlines() if line.startswith("found")
    ]
    assert name == "umt_jax" and RATE_HZ * 0.05 < int(latency) < RATE_HZ
    found = [line.split()[1] for line in printed.splitlines() if line.startswith("value")]
    assert [float(value) for value in found] == list(SETTINGS.values())

    # The input alone, as late as the translation: Ardour moves it back by what is reported.
    np.testing.assert_allclose(export(bundle, folder), 10 ** (-6 / 20) * waveform, atol=1e-6)

    # The translation, for which Ardour waits, since it says that it renders.
    session = folder / "umt.ardour"
    text = session.read_text()
    assert text.count('symbol="wet" value="0"') == 1
    session.write_text(text.replace('symbol="wet" value="0"', 'symbol="wet" value="1"'))
    out = export(bundle, folder)
    assert len(out) == len(waveform)
    for start in range(0, len(out), RATE_HZ // 4):
        assert np.abs(out[start : start + RATE_HZ // 4]).max() > 1e-3
