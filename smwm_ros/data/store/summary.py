"""What is in an episode store, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import h5py
import numpy as np

from smwm_ros.data.store.layout import OUTCOMES
from smwm_ros.data.store.reader import EpisodeStore


def summarise(store: EpisodeStore) -> dict[str, Any]:
    """
    Describe a store, as JSON-able values.

    Returns:
        ``path``, ``bytes`` of the file, ``robot``, ``fingerprint``, ``rows``, ``episodes``, ``seconds``
        at the contract's rate, ``lengths`` (rows in the shortest, the median and the longest episode),
        ``columns`` (of each the shape of a row, type, layout and bytes in the file), ``outcomes``,
        ``labels`` and ``origins`` (of each how many episodes), and ``source``.
    """
    facts = store.facts
    columns = [store.column(name) for name in store.columns]
    return {
        "path": str(store.path),
        "bytes": store.path.stat().st_size,
        "robot": store.contract.name,
        "fingerprint": store.fingerprint,
        "rows": len(store),
        "episodes": store.episodes,
        "seconds": len(store) / store.contract.rate,
        "lengths": {
            "least": int(store.lengths.min()),
            "median": float(np.median(store.lengths)),
            "most": int(store.lengths.max()),
        },
        "columns": {
            name: {
                "row": list(column.shape[1:]),
                "type": str(column.dtype),
                "layout": _layout(column),
                "bytes": column.id.get_storage_size(),
            }
            for name, column in zip(store.columns, columns, strict=True)
        },
        "outcomes": {name: sum(f.outcome == number for f in facts) for number, name in enumerate(OUTCOMES)},
        "labels": dict(Counter(f.label for f in facts if f.label)),
        "origins": dict(Counter(f.origin for f in facts if f.origin)),
        "source": _for_people(store.source),
    }


def list_episodes(store: EpisodeStore) -> list[dict[str, Any]]:
    """Describe each episode: number, first row, rows, outcome, label and origin."""
    return [
        {
            "episode": number,
            "first_row": int(store.offsets[number]),
            "rows": int(store.lengths[number]),
            "outcome": OUTCOMES[facts.outcome],
            "label": facts.label,
            "origin": facts.origin,
        }
        for number, facts in enumerate(store.facts)
    ]


def _layout(column: h5py.Dataset) -> str:
    if column.chunks is None:
        return "contiguous"
    filters = column.id.get_create_plist()
    names = [filters.get_filter(i)[3].decode() for i in range(filters.get_nfilters())]
    return " ".join(["chunked", *names])


def _for_people(source: Any) -> Any:
    """Leave out what ingest notes of every bag, so as not to read it again."""
    if isinstance(source, dict):
        return {key: _for_people(value) for key, value in source.items() if key != "ingested"}
    return [_for_people(item) for item in source] if isinstance(source, list) else source
