"""What differs between two builds of the same domains."""

from collections.abc import Mapping
from typing import Any

_NAMED = 3  # How many recordings of a kind are named; the others are counted.


def between(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what changed in each domain that is in both, one clause each; nothing if nothing did.

    The hashes of its recordings and the settings decide every shard of a domain. What only one of
    the two records, since another version of `data_prep.build` wrote it, is not compared.

    Args:
        before: What `data_prep.builder.describe` recorded, by domain.
        now: The same, later.
    """
    return [
        f"{domain}: {clause}"
        for domain, earlier in before.items()
        if domain in now
        for clause in _settings(earlier, now[domain]) + _recordings(earlier, now[domain])
    ]


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {now[name]} instead of {value}"
        for name, value in before.items()
        if name in now and now[name] != value and not isinstance(value, list | dict)
    ]


def _recordings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = (
        {track["name"]: track for track in domain.get("tracks", ())} for domain in (before, now)
    )
    both = [name for name in old if name in new]

    def differ(field: str) -> list[str]:
        return [name for name in both if old[name].get(field) != new[name].get(field)]

    other_content = differ("sha256")
    kinds = [
        ([name for name in new if name not in old], "more"),
        ([name for name in old if name not in new], "fewer"),
        (other_content, "of other content"),
        (
            [name for name in differ("num_segments") if name not in other_content],
            "split in another way",
        ),
    ]
    return [f"{_count(names)} {kind} ({_list(names)})" for names, kind in kinds if names]


def _count(names: list[str]) -> str:
    return "1 recording" if len(names) == 1 else f"{len(names)} recordings"


def _list(names: list[str]) -> str:
    others = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {others} more" if others > 0 else "")
