import numpy as np
import pytest

from umt_jax.live import ring


@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_samples_come_out_in_order_and_none_that_found_no_room(rng, capacity):
    buffer, expected, num_written, read = ring.Ring(capacity), [], 0, []
    for _ in range(500):
        block = np.arange(num_written, num_written + rng.integers(0, 20), dtype=np.float32)
        taken = buffer.write(block)
        assert taken == min(block.size, capacity - (len(expected) - len(read)))
        expected += block[:taken].tolist()
        num_written += block.size
        assert buffer.available == len(expected) - len(read)
        read += buffer.read(int(rng.integers(0, 20))).tolist()
    read += buffer.read(capacity).tolist()
    assert read == expected and buffer.read(5).size == 0
