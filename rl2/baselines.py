"""The classical algorithms beside RL² by name; all are actors that learn by `observe`."""

from typing import Any

from envs.protocols import Parameters
from rl2 import bandit_baselines, mdp_baselines
from rl2.bandit_baselines import BanditBaseline
from rl2.mdp_baselines import MdpBaseline

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
    "beb_replanned": mdp_baselines.BEBReplanned,
    "oracle": mdp_baselines.Oracle,
}


def make_baseline(
    name: str, parameters: Parameters, num_steps: int, episode_length: int = 10, **settings: Any
) -> BanditBaseline | MdpBaseline:
    """The baseline `name` for tasks with these parameters, as a family of `envs` samples them.

    That is {"means": [n, k]} or {"transition": [n, S, A, S'], "reward_mean": [n, S, A]}; only the oracle
    reads the values, the others take the sizes. `num_steps` is the length of play; `settings` are `rng` and
    the baseline's own, such as `epsilon`. Raises ValueError for an unknown name.
    """
    table: dict[str, Any] = BANDITS if "means" in parameters else MDPS
    if name not in table:
        raise ValueError(f"no baseline {name!r} in these tasks: choose one of {', '.join(table)}")
    if name == "oracle":
        settings.pop("rng", None)  # it draws nothing
        lengths = {} if table is BANDITS else {"episode_length": episode_length}
        return table[name](**parameters, **lengths, **settings)
    if table is BANDITS:
        return table[name](parameters["means"].shape[1], num_steps, **settings)
    return table[name](*parameters["reward_mean"].shape[1:], episode_length, **settings)
