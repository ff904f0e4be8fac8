"""The classical opponents of RL² by name, and the one function that lets them play."""

import numpy as np

from rl2 import bandit_baselines, mdp_baselines

BANDITS = {
    "random": bandit_baselines.Random,
    "gittins": bandit_baselines.Gittins,
    "thompson": bandit_baselines.Thompson,
    "optimistic_thompson": bandit_baselines.OptimisticThompson,
    "ucb1": bandit_baselines.UCB1,
    "epsilon_greedy": bandit_baselines.EpsilonGreedy,
    "greedy": bandit_baselines.Greedy,
    "oracle": bandit_baselines.Oracle,
}
MDPS = {
    "random": mdp_baselines.Random,
    "psrl": mdp_baselines.PSRL,
    "opsrl": mdp_baselines.OPSRL,
    "ucrl2": mdp_baselines.UCRL2,
    "beb": mdp_baselines.BEB,
    "epsilon_greedy": mdp_baselines.EpsilonGreedy,
    "greedy": mdp_baselines.Greedy,
    "greedy_replanned": mdp_baselines.GreedyReplanned,
    "oracle": mdp_baselines.Oracle,
}


def make_opponent(name, parameters, num_steps, episode_length=10, **settings):
    """The opponent `name` for tasks with these parameters, as a family of `envs` samples them.

    That is {"means": [n, k]} or {"transition": [n, S, A, S'], "reward_mean": [n, S, A]}; only the oracle
    reads the values, the others take the sizes. `num_steps` is the length of play; `settings` are the
    opponent's own, such as `epsilon`. Raises ValueError for an unknown name.
    """
    table = BANDITS if "means" in parameters else MDPS
    if name not in table:
        raise ValueError(f"no opponent {name!r} in these tasks: choose one of {', '.join(table)}")
    if table is BANDITS:
        sizes = {"num_arms": parameters["means"].shape[1], "horizon": num_steps}
        known = {"means": parameters["means"]}
    else:
        num_states, num_actions = parameters["reward_mean"].shape[1:]
        sizes = {"num_states": num_states, "num_actions": num_actions, "episode_length": episode_length}
        known = {**parameters, "episode_length": episode_length}
    return table[name](**(known if name == "oracle" else sizes), **settings)


def play(opponent, vec_env, num_steps, rng):
    """Rewards [num_steps, N] float32 of an opponent, from its prior on, in a SAME_STEP vector environment.

    The environment is reset with a seed drawn from `rng`. Raises ValueError unless episodes end together.
    """
    rewards = np.empty((num_steps, vec_env.num_envs), np.float32)
    observation, _ = vec_env.reset(seed=int(rng.integers(2**31)))
    opponent.reset(vec_env.num_envs)
    for step in range(num_steps):
        action = opponent.act(observation, rng)
        following, rewards[step], terminated, truncated, infos = vec_env.step(action)
        ended = terminated | truncated
        if ended.any() != ended.all():
            raise ValueError(f"step {step}: only some episodes ended; give tasks of one episode length")
        # At an episode's end `following` already is the next episode's first state.
        reached = np.asarray(infos["final_obs"]).astype(following.dtype) if ended.any() else following
        opponent.observe(observation, action, rewards[step], reached, bool(ended.any()))
        observation = following
    return rewards
