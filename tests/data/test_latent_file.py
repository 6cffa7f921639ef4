import dataclasses
import io
import json
import os
import zipfile

import jax
import numpy as np
import pytest
from conftest import random_parameters

from umt_jax import translator
from umt_jax.config import ModelConfig
from umt_jax.data import latent_file
from umt_jax.model import encoder_fingerprint, networks


@pytest.fixture(scope="module")
def model(tiny_config, tiny_parameters):
    return translator.Translator(tiny_config, tiny_parameters, engine="scan")


@pytest.fixture
def latents(rng, tiny_config):
    return rng.normal(size=(12, tiny_config.model.latent_channels)).astype(np.float32)


def test_numpy_shows_what_was_written(tmp_path, model, latents, tiny_config):
    model.save_latents(tmp_path / "a.npz", latents, source="song.mp3", num_samples=113)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["latents"], latents)
        assert arrays["latents"].dtype == np.float32
        assert arrays["frame_rate_hz"] == 16_000 / 10
        assert arrays["num_samples"] == 113
        assert str(arrays["source"]) == "song.mp3"
        assert str(arrays["encoder"]) == model.encoder_fingerprint
        assert str(arrays["preset"]) == tiny_config.preset == "tiny"
        assert json.loads(str(arrays["model"])) == dataclasses.asdict(tiny_config.model)


def test_what_is_read_is_what_was_written(tmp_path, model, latents):
    model.save_latents(tmp_path / "a.npz", latents, source="song.mp3", num_samples=113)
    np.testing.assert_array_equal(model.load_latents(tmp_path / "a.npz"), latents)
    file = latent_file.read(
        tmp_path / "a.npz", encoder=model.encoder_fingerprint, model=model.config.model
    )
    assert (file.num_samples, file.source) == (113, "song.mp3")
    assert latent_file.num_samples(tmp_path / "a.npz") == 113
    model.save_latents(tmp_path / "b.npz", latents)
    assert latent_file.num_samples(tmp_path / "b.npz") == 120


def test_fields_that_came_later_leave_the_fingerprints_of_older_latents():
    # What it was before there was `encoder_activation`.
    parameters = {"first": np.arange(3, dtype=np.float32)}
    assert encoder_fingerprint.fingerprint(parameters, ModelConfig()) == "a45a16472cd3efc6"


def test_the_fingerprint_is_by_what_decides_latents_and_nothing_else(tiny_config, tiny_parameters):
    config, parameters = tiny_config.model, tiny_parameters.encoder
    fingerprint = encoder_fingerprint.fingerprint(parameters, config)
    on_device = jax.tree.map(jax.numpy.asarray, parameters)
    assert fingerprint == encoder_fingerprint.fingerprint(on_device, config)
    assert fingerprint == encoder_fingerprint.fingerprint(
        parameters, dataclasses.replace(config, decoder_layers=9, skip_channels=3)
    )
    leaves, tree = jax.tree.flatten(parameters)
    for index, leaf in enumerate(leaves):
        changed = leaf.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        others = jax.tree.unflatten(tree, [*leaves[:index], changed, *leaves[index + 1 :]])
        assert encoder_fingerprint.fingerprint(others, config) != fingerprint
    for change in (
        {"encoder_preactivation": True},
        {"encoder_activation": "tanh"},
        {"mu_law": "truncated"},
        {"sample_rate_hz": 8000},
        {"pool_samples": 20},
    ):
        changed = dataclasses.replace(config, **change)
        assert encoder_fingerprint.fingerprint(parameters, changed) != fingerprint


def test_decoders_on_a_frozen_encoder_take_the_latents_of_the_run_it_came_from(
    tmp_path, model, latents, tiny_config, tiny_parameters
):
    model.save_latents(tmp_path / "a.npz", latents)
    more = dataclasses.replace(tiny_config, domains=(*tiny_config.domains, "Oboe"))
    others = networks.NetworkParameters(
        encoder=tiny_parameters.encoder,
        decoders=jax.tree.map(lambda a: np.concatenate([a, a[:1]]), tiny_parameters.decoders),
        classifier=tiny_parameters.classifier,
    )
    fine_tuned = translator.Translator(more, others, engine="scan")
    np.testing.assert_array_equal(fine_tuned.load_latents(tmp_path / "a.npz"), latents)


def test_latents_of_another_encoder_are_refused(tmp_path, model, latents, tiny_config):
    model.save_latents(tmp_path / "a.npz", latents, source="song.mp3")
    others = random_parameters(networks.Networks(tiny_config), seed=1)
    other = translator.Translator(tiny_config, others, engine="scan")
    with pytest.raises(ValueError) as caught:
        other.load_latents(tmp_path / "a.npz")
    assert str(caught.value) == (
        f"{tmp_path}/a.npz holds latents of another encoder: its fingerprint is "
        f"{model.encoder_fingerprint}, this checkpoint's is {other.encoder_fingerprint}. Encode "
        "the recording, 'song.mp3', with this one."
    )


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-30])


def a_text(path):
    path.write_text("not latents " * 100)


def empty(path):
    path.write_bytes(b"")


def changed(**changes):
    def damage(path):
        with np.load(path) as arrays:
            kept = dict(arrays) | changes
        np.savez(path, **{name: array for name, array in kept.items() if array is not None})

    return damage


def rezipped(change, **options):
    """Writes the arrays anew, each with what `change` makes of its name and bytes."""

    def damage(path):
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in contents.items():
                archive.writestr(name, change(name, content))

    return damage


def declaring(shape):
    """The header of the latents declares more than the file holds."""

    def change(name, content):
        return content.replace(b"(12, 5)", shape) if name == "latents.npy" else content

    return rezipped(change)


def encrypted(path):
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = -1
        while (at := content.find(magic, at + 1)) >= 0:
            content[at + offset] |= 1
    path.write_bytes(content)


def a_bomb(path):
    """A gigabyte of zeros in a megabyte, declared as what it is."""
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (2**28 // 5, 5)}
    np.lib.format.write_array_header_1_0(header, about)
    num_bytes = 2**28 // 5 * 5 * 4
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in contents.items():
            if name == "latents.npy":
                with archive.open(name, "w") as stream:
                    stream.write(header.getvalue())
                    for start in range(0, num_bytes, 2**24):
                        stream.write(bytes(min(2**24, num_bytes - start)))
            else:
                archive.writestr(name, content)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        encrypted,
        a_bomb,
        a_pipe,
        declaring(b"(10**9,)"),
        declaring(b"(1000000000, 5)"),
        declaring(b"(-12, -5)"),
        declaring(b"(" * 500),
        rezipped(lambda name, content: content, compression=zipfile.ZIP_LZMA),
        rezipped(lambda name, content: content[:3]),
        changed(num_samples=np.inf),
        changed(num_samples=10**18),
        changed(num_samples="113"),
        changed(num_samples=np.array([113])),
        changed(source=3),
        changed(model="[" * 100_000),
        changed(model='{"pool_samples": "10"}'),
        changed(model='{"encoder_layers": 1000000}'),
        cut_off,
        a_text,
        empty,
        changed(latents=None),
        changed(encoder=None),
        changed(model="{}}"),
        changed(model='{"colour": 3}'),
        changed(num_samples=121),
        changed(num_samples=0),
        changed(latents=np.zeros((12, 5))),
        changed(latents=np.zeros((12, 4), np.float32)),
        changed(latents=np.zeros((12,), np.float32)),
        changed(latents=np.full((12, 5), np.nan, np.float32)),
        changed(latents=np.array([{"pickled": "code"}])),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, model, latents, damage):
    path = tmp_path / "a.npz"
    model.save_latents(path, latents)
    damage(path)
    with pytest.raises(ValueError, match=r"a\.npz is not a whole file of latents .*--save_latents"):
        model.load_latents(path)
    assert latent_file.num_samples(path) in (0, 113, 120, 121, 10**18)


def test_compressed_latents_are_read_as_well(tmp_path, model, latents):
    model.save_latents(tmp_path / "a.npz", latents)
    with np.load(tmp_path / "a.npz") as arrays:
        kept = dict(arrays)
    np.savez_compressed(tmp_path / "b.npz", **kept | {"latents": np.asfortranarray(latents)})
    np.testing.assert_array_equal(model.load_latents(tmp_path / "b.npz"), latents)


def test_a_file_that_is_not_there_is_an_error_of_the_path(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        model.load_latents(tmp_path / "none.npz")


def test_a_file_under_another_extension_is_refused(tmp_path, model, latents):
    with pytest.raises(ValueError, match="latents are written as .npz"):
        model.save_latents(tmp_path / "a.wav", latents)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, model, latents, monkeypatch):
    model.save_latents(tmp_path / "a.npz", latents)
    before = (tmp_path / "a.npz").read_bytes()

    def full(handle, **arrays):
        handle.write(b"some")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_latents(tmp_path / "a.npz", latents + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before
