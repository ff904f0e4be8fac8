"""How a policy fares with exploration off, while it is trained."""

from contextlib import closing

from common.runs.seeding import SharedStream, stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.belief import BeliefPolicy
from rl2.config import Config
from rl2.policy import Actor, RecurrentPolicy
from rl2.rollout import mean_returns, play_meta_episodes


def greedy_returns(
    policy: RecurrentPolicy | BeliefPolicy, problem: Problem, config: Config, comm: Comm
) -> dict[str, float]:
    """`eval/return` and `eval/return_episode_01`... of the most likely actions; a collective.

    The `eval_tasks` tasks and their noise are never trained on. They are the same each time, so that two
    numbers differ by the policy and not by luck.
    """
    tasks, played = problem.sample(stream(config.seed, "evaluation", 0), config.eval_tasks), None
    share = comm.share(config.eval_tasks)
    if share.start < share.stop:
        mine = {name: values[share] for name, values in tasks.items()}
        rng = SharedStream(stream(config.seed, "evaluation", 1), config.eval_tasks, share)
        with closing(problem.family.make_vec(mine, rng)) as env:
            actor = Actor(policy, problem.family.action_space)
            played = play_meta_episodes(env, actor, config.meta_episode_len, config.episodes)
    return mean_returns("eval", played, comm, config.episodes)
