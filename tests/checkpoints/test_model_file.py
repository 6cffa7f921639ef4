import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import umt_jax
from umt_jax.checkpoints import checkpoint, model_file, reading
from umt_jax.model import networks


def test_a_model_file_reads_back_as_it_was_written(tmp_path, tiny_config, tiny_parameters):
    path = tmp_path / "model.safetensors"
    model_file.write(
        path, tiny_config, networks.by_name(tiny_parameters), licence="CC0-1.0", source="a test"
    )
    assert reading.read_config(str(path)) == tiny_config
    restored = checkpoint.restore_parameters(str(path))
    jax.tree.map(np.testing.assert_array_equal, restored, tiny_parameters)
    translator = umt_jax.load(str(path), domains=["Flute"])
    assert translator.domains == ("Flute",)


def test_the_format_is_that_of_safetensors(tmp_path, tiny_config, tiny_parameters):
    path = tmp_path / "model.safetensors"
    model_file.write(
        path, tiny_config, networks.by_name(tiny_parameters), licence="CC0-1.0", source="a test"
    )
    # As the format's description has it, by hand.
    file = path.read_bytes()
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["licence"] == "CC0-1.0" and metadata["source"] == "a test"
    assert metadata["domains"].split("\n") == ["Cello", "Flute", "Piano"]
    assert metadata["pool_samples"] == "10" and metadata["rms_dbfs"] == ""
    begin, end = header["decoders.logits.kernel"]["data_offsets"]
    kernel = np.frombuffer(file[8 + length :][begin:end], "<f4").reshape(3, 9, 256)
    np.testing.assert_array_equal(kernel, tiny_parameters.decoders["logits"]["kernel"])
    # One array after the other, without a gap.
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert [start for start, _ in offsets] == [0, *(end for _, end in offsets)][:-1]
    assert offsets[-1][1] == len(file) - 8 - length


def test_the_package_safetensors_reads_it(tmp_path, tiny_config, tiny_parameters):
    path = tmp_path / "model.safetensors"
    model_file.write(
        path, tiny_config, networks.by_name(tiny_parameters), licence="CC0-1.0", source="a test"
    )
    arrays = safetensors.numpy.load_file(path)
    flat, _ = jax.tree_util.tree_flatten_with_path(dataclasses.asdict(tiny_parameters))
    names = {".".join(part.key for part in place): leaf for place, leaf in flat}
    decoders_and_encoder = {n: a for n, a in names.items() if not n.startswith("classifier")}
    assert decoders_and_encoder.keys() <= arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, names[name])
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["licence"] == "CC0-1.0"


def test_a_model_file_has_no_steps_and_no_other_types(tmp_path, tiny_config, tiny_parameters):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*model\.safetensors"):
        reading.read_config(str(path))
    doubles = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tiny_parameters)
    with pytest.raises(ValueError, match="float64, and must be float16 or float32"):
        model_file.write(path, tiny_config, networks.by_name(doubles))
    model_file.write(path, tiny_config, networks.by_name(tiny_parameters))
    with pytest.raises(ValueError, match="step=3 names a checkpoint of a run"):
        reading.read_config(str(path), 3)
    with pytest.raises(ValueError, match="file already"):
        checkpoint.to_share(str(path))
