"""Whether the package simglucose is there, whose parameters and reference patient tests use."""

import importlib.metadata

import pytest


def installed() -> bool:
    """Whether the package is there."""
    try:
        importlib.metadata.distribution("simglucose")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_simglucose = pytest.mark.skipif(
    not installed(), reason="pip install --no-deps simglucose==0.2.2 has the patients' parameters"
)
