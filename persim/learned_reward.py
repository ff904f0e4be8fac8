"""A reward that nobody can write down, learnt from the log as one more state: what was earned so far.

A simulator predicts its change as it does the others', so an agent's reward may be its own, and planning and
unseen agents need nothing new. What was earned acts on nothing: the weights from it are zero, and stay so
because it is zero in all that is learnt from.
"""

import dataclasses

import numpy as np

from persim.data.transitions import Transitions

NAME = "(earned)"


def with_earned(data: Transitions) -> Transitions:
    """The same with a last state that is 0 before a step and the step's reward after it."""
    before, after = np.zeros((len(data), 1), np.float32), data.reward[:, None]
    return dataclasses.replace(
        data,
        state=np.concatenate([data.state, before], axis=1),
        next_state=np.concatenate([data.next_state, after], axis=1),
        state_names=[*data.state_names, NAME],
    )


class Earning:
    """A `Dynamics` family whose states [..., d + 1] end with what was earned; all else is the family's."""

    def __init__(self, family):
        self.family = family

    def __getattr__(self, name):
        return getattr(self.family, name)

    def start(self, rng, num_episodes: int):
        state = self.family.start(rng, num_episodes)
        return np.concatenate([state, np.zeros((num_episodes, 1))], axis=1)

    def advance(self, state, action, parameters):
        """The next states of arrays [..., d + 1]; the last coordinate grows by the true reward."""
        following = self.family.advance(state[..., :-1], action, parameters)
        reward = self.family.reward(state[..., :-1], action, following)
        earned = state[..., -1] + np.broadcast_to(reward, state.shape[:-1])
        return np.concatenate([following, earned[..., None]], axis=-1).astype(state.dtype)

    def reward(self, state, action, next_state):
        """What a step earned, arrays or tensors [..., d + 1]: in a simulator, what it predicts."""
        return next_state[..., -1] - state[..., -1]

    def terminated(self, next_state):
        return self.family.terminated(next_state[..., :-1])

    def blind(self, make_policy):
        """Policies, made by `make_policy(number)`, that do not see what was earned."""

        def make(number: int):
            policy = make_policy(number)
            return lambda state, rng: policy(state[:, :-1], rng)

        return make


def hide(test, *predictions):
    """A test and predictions [..., d + 1] without what was earned, which would drown the other states."""
    return dataclasses.replace(test, states=test.states[..., :-1]), *(p[..., :-1] for p in predictions)
