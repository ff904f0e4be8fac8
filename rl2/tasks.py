"""What is meta-trained on: a built-in family of tasks or the user's own, and the teacher of a warm start."""

from envs import agreed_factory, make_family


def task_family(config, comm):
    """The family of `config.environment`; a user's factory is imported by rank 0 and sent to all ranks."""
    factory = agreed_factory(config.environment, comm)
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
