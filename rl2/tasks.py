"""What is meta-trained on: a built-in family of tasks or the user's own, and the teacher of a warm start."""

import importlib
import os
import sys

from common.config import UsageError
from envs import make_family


def load_factory(environment: str):
    """The user's factory from `module:factory`; called on rank 0 only, which then sends it to the others."""
    module_name, _, attribute = environment.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--environment {environment}: cannot be imported ({error})") from None
    finally:
        sys.path.pop(0)
    if not callable(factory):
        raise UsageError(
            f"--environment {environment}: is not callable; give a function that returns a task family"
        )
    return factory


def task_family(config, comm):
    """The family of `config.environment`; a user's factory is imported by rank 0 and sent to all ranks."""
    factory = None
    with comm.agree():
        if ":" in config.environment and comm.is_root:
            factory = load_factory(config.environment)
    factory = comm.bcast_object(factory)
    with comm.agree():
        if factory is not None:
            return make_family(factory)
        names = {"bandit": ("num_actions",), "tabular_mdp": ("num_states", "num_actions", "max_episode_len")}
        sizes = {name: getattr(config, name) for name in names.get(config.environment, ())}
        return make_family(config.environment, **sizes)


def teacher_of(config):
    """The planner that `--warm_start` imitates, or None."""
    if config.warm_start == "none":
        return None
    from rl2.mdp_baselines import GreedyReplanned

    return GreedyReplanned(config.num_states, config.num_actions, config.max_episode_len)
