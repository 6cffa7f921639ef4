import os

import pytest

from umt_jax.processes import cores


def _write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _version_1(group, quota):
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "25000\n"}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        # Version 2: in the group itself, in one above it, and without a limit.
        ("0::/job/7", {"job/7/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job/7", {"job/7/cpu.max": "max 100000\n", "job/cpu.max": "400000 100000\n"}, 4),
        ("0::/job", {"job/cpu.max": "max 100000\n"}, float("inf")),
        # The container's own root, under whatever name the host gave it.
        ("0::/docker/abc", {"cpu.max": "200000 100000\n"}, 2),
        # Version 1.
        (
            "4:cpu,cpuacct:/a\n3:memory:/b",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "25000",
            },
            2,
        ),
        (
            "1:cpu:/",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000"},
            float("inf"),
        ),
        ("9:memory:/x\n", {"x/cpu.max": "100000 100000"}, float("inf")),
    ],
)
def test_the_share_is_the_smallest_of_the_groups_that_hold_the_process(
    tmp_path, own, files, expected
):
    _write(tmp_path, {"self": own})
    _write(tmp_path / "groups", files)
    assert cores.share(tmp_path / "groups", tmp_path / "self") == expected


def test_a_system_without_groups_has_no_limit(tmp_path):
    assert cores.share(tmp_path / "none", tmp_path / "neither") == float("inf")


def test_usable_cores_are_those_of_the_process_within_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert cores.usable() == 6
    _write(tmp_path, {"self": "0::/", "cpu.max": "350000 100000"})
    assert cores.usable() == 3
    _write(tmp_path, {"cpu.max": "20000 100000"})
    assert cores.usable() == 1
