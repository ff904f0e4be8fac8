"""Which recurrent policies can be exported."""

import dataclasses

import pytest

from common.errors import UserError
from rl2 import export
from rl2.config import Config


@pytest.mark.parametrize("architecture", ["snail", "transformer"])
def test_memories_that_count_their_steps_are_refused(architecture):
    with pytest.raises(UserError, match="only those of lstm, gru and varibad") as error:
        export.check(dataclasses.replace(Config(), architecture=architecture))
    assert "\n" not in str(error.value)
    export.check(Config())
