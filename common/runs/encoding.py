"""A nested state as one JSON tree and a flat dictionary of tensors, and back, exactly.

Containers and numbers that JSON lacks become an object with one key that starts with "$".
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

TENSOR, ARRAY, SCALAR, TUPLE, DICT, FLOAT = "$tensor", "$array", "$scalar", "$tuple", "$dict", "$float"


def encode(value: Any, tensors: dict[str, torch.Tensor], path: str = "state") -> Any:
    """Return the JSON tree of `value`; tensors and arrays are copied into `tensors` under their path.

    Knows tensors, NumPy arrays and numbers, dict, list, tuple, str, int, float, bool, None; else TypeError.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {FLOAT: repr(value)}
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR: _store(tensor, tensors, path)}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{path}: cannot save an array of {value.dtype}")
        array = np.array(value, value.dtype.newbyteorder("="), order="C")
        kind = ARRAY if isinstance(value, np.ndarray) else SCALAR
        return {kind: _store(torch.from_numpy(array), tensors, path)}
    if isinstance(value, list | tuple):
        items = [encode(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {TUPLE: items}
    if isinstance(value, dict):
        pairs = [[encode(k, tensors), encode(v, tensors, f"{path}/{k}")] for k, v in value.items()]
        plain = all(type(k) is str and not k.startswith("$") for k in value)
        return dict(pairs) if plain else {DICT: pairs}
    raise TypeError(f"{path}: cannot save a {type(value).__name__}")


def decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the value that `encode` was given; ValueError or KeyError for a tree it did not make."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = next(iter(tree), "")
    if not tag.startswith("$"):
        return {key: decode(value, tensors) for key, value in tree.items()}
    content = tree[tag]
    if tag == TENSOR:
        return tensors[content]
    if tag == ARRAY:
        return tensors[content].numpy()
    if tag == SCALAR:
        return tensors[content].numpy()[()]
    if tag == TUPLE:
        return tuple(decode(item, tensors) for item in content)
    if tag == DICT:
        return {decode(key, tensors): decode(value, tensors) for key, value in content}
    if tag == FLOAT and content in ("inf", "-inf", "nan"):
        return float(content)
    raise ValueError(f"unknown kind of value {tag}")


def first_not_finite(value: Any, path: str = "state") -> str:
    """Return the path of the first tensor or array in a state that holds NaN or an infinity, else ""."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    elif isinstance(value, torch.Tensor):
        return "" if bool(torch.isfinite(value).all()) else path
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return "" if bool(np.isfinite(value).all()) else path
    else:
        return ""  # a number may be infinite: the best so far of a run that has none
    return next((bad for k, v in inner if (bad := first_not_finite(v, f"{path}/{k}"))), "")


def _store(tensor: torch.Tensor, tensors: dict[str, torch.Tensor], path: str) -> str:
    name = path
    while name in tensors:  # "a/b" as one key and as two
        name += "'"
    tensors[name] = tensor
    return name
