"""Settings of RL^2; the command-line flags are made from this class."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    POSITIVE,
    UNIT_INTERVAL,
    Applies,
    Group,
    Within,
    check,
    check_run_name,
)
from common.errors import UserError
from envs.families import DISCRETE_FAMILIES

# Days of diabetes patients, where they differ from the MDPs of the paper: a meta-episode is two days.
DIABETES: dict[str, Any] = {
    "meta_episode_len": 576,
    "early_ends": "wait",
    "num_features": 64,
    "meta_episodes_per_policy_update": 480,
    "meta_episodes_per_learner_batch": 60,
    "meta_episodes_per_start": 8,
    "max_iters": 200,
    "initial_log_std": -1.5,
    "final_log_std": -3.0,
    "entropy_coef": 0.0,
    "gamma": 0.995,
    "gae_lambda": 1.0,
    "learning_rate": 2e-3,
    "learning_rate_final": 1e-4,
}

# The suite of continuous meta-RL tasks (Zintgraf et al. 2020), where it differs from the paper's MDPs.
CONTINUOUS: dict[str, Any] = {
    "meta_episode_len": 400,
    "num_features": 128,
    "normalise_observations": True,
    "meta_episodes_per_policy_update": 128,
    "meta_episodes_per_learner_batch": 16,
    "entropy_coef": 0.005,
    "gamma": 0.97,
    "gae_lambda": 0.9,
    "bootstrap": True,
    "normalise_rewards": True,
    "learning_rate": 1e-3,
    "learning_rate_final": 1e-4,
}
CHEETAH: dict[str, Any] = {
    "initial_log_std": -1.0,
    "num_epochs": 4,
    "learning_rate": 2e-3,
    "max_iters": 500,
}
FALLING: dict[str, Any] = {"episodes": 2}  # robots whose episodes end where they fall
SPARSE: dict[str, Any] = {
    "meta_episode_len": 300,
    "gamma": 0.99,
    "entropy_coef": 0.001,
    "initial_log_std": 0.0,
}
SUITE: dict[str, dict[str, Any]] = {
    **{name: CONTINUOUS | CHEETAH for name in ("half_cheetah_vel", "half_cheetah_dir")},
    "ant_goal": CONTINUOUS,
    **{name: CONTINUOUS | FALLING for name in ("ant_dir", "ant_forward_backward", "walker_params")},
    "sparse_point_robot": CONTINUOUS | SPARSE,
    # The value of what a walk leaves unvisited lies an episode ahead: it takes a late discount to see it, and
    # entropy, to leave a walk that is as good within its episode.
    "grid_navi": {
        "meta_episode_len": 60,
        "num_features": 128,
        "entropy_coef": 0.06,
        "gamma": 0.97,
        "gae_lambda": 0.9,
        "max_iters": 300,
    },
}

# VariBAD (Zintgraf et al. 2020) in these tasks, where it differs from its own defaults (docs/suite.md).
VARIBAD: dict[str, dict[str, Any]] = {
    "ant_goal": {"latent_size": 10, "kl_weight": 0.0025, "vae_updates": 25},
    "walker_params": {"latent_size": 10, "decode": "state", "kl_weight": 0.2},
    "sparse_point_robot": {"reward_decoder": "arrival", "kl_weight": 0.05, "vae_updates": 32},
    "grid_navi": {
        "encoder_features": 64,
        "reward_decoder": "heads",
        "kl_weight": 0.004,
        "learning_rate": 2e-3,
        "vae_learning_rate": 5e-3,
        "vae_updates": 60,
        "elbo_terms": 0,
        "elbo_steps": 0,
    },
}

EXPERTS = {"bayes_greedy": "tabular_mdp", "gittins": "bandit"}  # of a warm start, and whose prior they know

OF_MDPS = Applies("--environment tabular_mdp", lambda c: c.environment == "tabular_mdp")
OF_ARMS = Applies("--environment tabular_mdp or bandit", lambda c: c.environment in ("tabular_mdp", "bandit"))
OF_BOXES = Applies("continuous actions", lambda c: c.environment not in DISCRETE_FAMILIES)
OF_GATES = Applies(
    "--architecture lstm, gru or varibad", lambda c: c.architecture in ("lstm", "gru", "varibad")
)
OF_MEMORIES = Applies(
    "an --architecture that remembers and is not varibad", lambda c: c.architecture not in ("none", "varibad")
)
OF_VARIBAD = Applies("--architecture varibad", lambda c: c.architecture == "varibad")
OF_REWARDS = Applies(
    "--architecture varibad that decodes rewards",
    lambda c: c.architecture == "varibad" and c.decode != "state",
)
OF_LAYERS = Applies("a --readout with hidden layers", lambda c: c.readout != "linear")
OF_FIXED_SCALE = Applies("--normalise_rewards False", lambda c: not c.normalise_rewards)
OF_EVALUATIONS = Applies("--eval_interval", lambda c: c.eval_interval > 0)
OF_WARM_STARTS = Applies("--warm_start", lambda c: c.warm_start != "none")
OF_PLANNERS = Applies("--warm_start bayes_greedy", lambda c: c.warm_start == "bayes_greedy")


@dataclass(frozen=True)
class Config:
    """RL^2 (Duan et al. 2016): an LSTM that learns to learn, by PPO over meta-episodes.

    Sizes are global: more ranks change the speed, not the experiment.
    """

    ALIASES: ClassVar[dict[str, str]] = {
        "max_pol_iters": "max_iters",
        "adam_lr": "learning_rate",
        "adam_lr_final": "learning_rate_final",
        "discount_gamma": "gamma",
        "ppo_clip_param": "clip_range",
        "ppo_ent_coef": "entropy_coef",
        "ppo_ent_coef_final": "entropy_coef_final",
        "ppo_value_coef": "value_coef",
        "ppo_opt_epochs": "num_epochs",
        "adam_wd": "weight_decay",
        "standardize_advs": "normalise_advantages",
    }
    BEFORE: ClassVar[dict[str, Any]] = {
        "action_scaling": "none",
        "episodes": 0,
        "normalise_observations": False,
        "normalise_rewards": False,
        "bootstrap": False,
    }
    VALUE_ALIASES: ClassVar[dict[str, dict]] = {"normalise_advantages": {0: False, 1: True}}

    environment: Annotated[str, Group("population")] = "tabular_mdp"
    """What tasks are drawn from: bandit, tabular_mdp, any other environment, or module:factory."""
    population: Annotated[str, MAY_BE_EMPTY] = ""
    """A file of tasks (python -m envs.populate) to draw from, in place of the environment's own."""
    num_states: Annotated[int, POSITIVE, OF_MDPS] = 10
    """States of the tabular MDP."""
    num_actions: Annotated[int, POSITIVE, OF_ARMS] = 5
    """Actions of the tabular MDP, arms of the bandit."""
    max_episode_len: Annotated[int, POSITIVE, OF_MDPS] = 10
    """Steps of an episode of the tabular MDP."""
    meta_episode_len: Annotated[int, POSITIVE] = 100
    """Steps of a meta-episode: how long the policy learns about one task."""
    episodes: Annotated[int, AT_LEAST_ZERO] = 0
    """Episodes of a meta-episode, which then ends with the last of them, at different times in different
    tasks; meta_episode_len is the most steps they can last. 0: as many as meta_episode_len steps hold."""
    early_ends: Literal["restart", "wait"] = "restart"
    """After an episode that ends early in a meta-episode the next one begins; or the rest of its time passes
    without rewards (wait): where ends are failures, a memory is not to gain by them."""

    architecture: Annotated[
        Literal["lstm", "gru", "snail", "transformer", "varibad", "none"], Group("policy")
    ] = "lstm"
    """The memory. varibad: a policy that sees a belief about the task, by an encoder that is trained to
    predict rewards or states (Zintgraf et al. 2020). none: one policy for all tasks, which sees the
    observation alone."""
    see_task: bool = False
    """Observations hold the parameters of the task too: an oracle, from which nothing is hidden."""
    num_features: Annotated[int, POSITIVE] = 256
    """Units of the memory; of VariBAD's policy."""
    memory_span: Annotated[int, Within(-1), OF_GATES] = -1
    """Steps that fresh gates remember at most (0: usual forget bias 1; -1: the meta-episode)."""
    normalise_observations: bool = False
    """Observations get mean 0 and deviation 1 over all that were seen in training (Box observations only)."""
    transition_encoder: Annotated[Literal["auto", "plain", "joint", "mlp"], OF_MEMORIES] = "auto"
    """How the last transition enters: its parts (plain); also the pair (observation, action) as one input,
    and times the reward (joint); by a small network (mlp). auto: joint if discrete and small, else mlp."""
    readout: Literal["auto", "linear", "bilinear", "mlp"] = "auto"
    """How actions are read from memory: by one linear map (linear), by one for each discrete observation
    (bilinear), by a small network that sees the observation (mlp). auto: bilinear if discrete and small."""
    readout_layers: Annotated[int, POSITIVE, OF_LAYERS] = 1
    """Hidden layers between memory and outputs (none if linear)."""
    action_scaling: Annotated[Literal["box", "none"], OF_BOXES] = "box"
    """Continuous actions of a policy in -1..1 are stretched to the bounds of the environment's Box; or they
    are in the environment's units (none), as before there was a choice."""
    initial_log_std: Annotated[float, Within(-20, 5), OF_BOXES] = -0.5
    """Logarithm of the standard deviation of continuous actions at the start."""
    final_log_std: Annotated[float | None, Within(-20, 5), OF_BOXES] = None
    """Falls linearly to this; None: it is trained."""
    initial_action: Annotated[float, Within(-1, 1), OF_BOXES] = 0.0
    """Mean of continuous actions at the start, in -1..1."""
    shared_network: bool = True
    """One memory for policy and value, or one each."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic inside the memory; weights stay float32. auto: bfloat16 if the processor has it."""

    encoder_features: Annotated[int, POSITIVE, OF_VARIBAD, Group("variational")] = 128
    """Units of VariBAD's encoder, a GRU."""
    latent_size: Annotated[int, POSITIVE, OF_VARIBAD] = 5
    """Numbers of the latent that stands for the task; the policy sees the mean and log variance of each."""
    decode: Annotated[Literal["reward", "state", "both"], OF_VARIBAD] = "reward"
    """What is predicted from the latent: rewards, next states or both."""
    reward_decoder: Annotated[Literal["transition", "arrival", "heads"], OF_REWARDS] = "transition"
    """Rewards are predicted from state, action and next state (transition) or from the next state (arrival);
    or, for each discrete observation that is reached, whether they are above 0 (heads)."""
    kl_weight: Annotated[float, AT_LEAST_ZERO, OF_VARIBAD] = 0.02
    """Weight of the KL divergence of a belief to the one before, in nats, beside the mean error of a step."""
    elbo_terms: Annotated[int, AT_LEAST_ZERO, OF_VARIBAD] = 50
    """Beliefs of a meta-episode that are decoded in a gradient step, drawn at random (0: all)."""
    elbo_steps: Annotated[int, AT_LEAST_ZERO, OF_VARIBAD] = 50
    """Steps of the meta-episode that each of them predicts, past and to come, drawn at random (0: all)."""
    vae_updates: Annotated[int, POSITIVE, OF_VARIBAD] = 10
    """Gradient steps of encoder and decoders in an iteration, on meta_episodes_per_learner_batch each."""
    vae_buffer: Annotated[int, POSITIVE, OF_VARIBAD] = 4
    """Iterations whose meta-episodes they are drawn from; these are part of every save."""
    vae_learning_rate: Annotated[float, POSITIVE, OF_VARIBAD] = 1e-3
    """Learning rate of encoder and decoders."""

    max_iters: Annotated[int, POSITIVE, Group("running")] = 1000
    """Iterations of training; the same command again with more continues."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where networks live: cpu, cuda or cuda:N."""

    start_from: Annotated[str, MAY_BE_EMPTY, Group("learning")] = ""
    """A run, or a save in it, whose policy is where training begins, with the same networks; empty: networks
    are drawn. What was learnt in short meta-episodes is a good start for long ones."""
    warm_start: Literal["none", "bayes_greedy", "gittins"] = "none"
    """Behavioural cloning of an expert that knows the prior, before PPO (it is then no pure RL^2): a planner
    for tabular MDPs (bayes_greedy), the highest finite-horizon Gittins index for bandits (gittins)."""
    warm_start_iters: Annotated[int, AT_LEAST_ZERO, OF_WARM_STARTS] = 60
    """Iterations of cloning, counted within max_iters."""
    warm_start_lr: Annotated[float, POSITIVE, OF_WARM_STARTS] = 3e-3
    """Learning rate at the start of cloning; it falls linearly to learning_rate."""
    warm_start_bonus: Annotated[float, AT_LEAST_ZERO, OF_PLANNERS] = 0.0
    """The planner adds this, divided by 1 + visits, to the reward of each state and action: then it explores
    for the sake of later episodes."""
    meta_episodes_per_policy_update: Annotated[int, POSITIVE] = 960
    """Meta-episodes collected in one iteration."""
    meta_episodes_per_learner_batch: Annotated[int, POSITIVE] = 60
    """Meta-episodes in one gradient step; divides the number collected."""
    meta_episodes_per_start: Annotated[int, POSITIVE] = 1
    """Meta-episodes that have one task, begin alike and draw alike (common random numbers). What a step is
    worth is then told by those beside it at the same time, not by chance."""
    num_epochs: Annotated[int, POSITIVE] = 2
    """Passes over the collected meta-episodes."""
    clip_range: Annotated[float, POSITIVE] = 0.2
    """Clip range of the probability ratio."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO] = 0.02
    """Weight of the entropy bonus at the start of PPO."""
    entropy_coef_final: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Weight of the entropy bonus at the last iteration; it falls linearly."""
    value_coef: Annotated[float, AT_LEAST_ZERO] = 0.5
    """Weight of the value loss."""
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    """Gradients are clipped at this norm, after they are averaged over ranks."""
    gamma: Annotated[float, UNIT_INTERVAL] = 0.95
    """Discount."""
    gae_lambda: Annotated[float, UNIT_INTERVAL] = 0.8
    """Lambda of generalised advantage estimation."""
    bootstrap: bool = False
    """The value of going on stands for what would follow a meta-episode that ends by time, not by a fall in
    the last of its --episodes; else nothing follows, which a policy without a clock cannot foresee."""
    cut_at_time_limits: bool = False
    """At time limits of episodes inside a meta-episode, too, values stand for what follows. Credit then does
    not flow back from later episodes, so exploring for their sake is not learnt from it."""
    normalise_advantages: bool = True
    """Advantages get mean 0 and deviation 1 over all ranks."""
    normalise_rewards: bool = False
    """Rewards are divided by the running deviation of discounted returns in place of reward_scale, and
    clipped at 10 of them."""
    reward_scale: Annotated[float, POSITIVE, OF_FIXED_SCALE] = 0.03
    """Rewards are multiplied by this for returns and advantages only, not in the policy's input."""
    learning_rate: Annotated[float, POSITIVE] = 5e-3
    """Learning rate at the start of PPO."""
    learning_rate_final: Annotated[float, AT_LEAST_ZERO] = 5e-5
    """Learning rate at the last iteration; it falls linearly."""
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    """Adam's epsilon."""
    weight_decay: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Decoupled weight decay, on matrices only."""

    model_name: Annotated[str, Group("output")] = "defaults"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 10
    """Iterations between two saves."""
    eval_interval: Annotated[int, AT_LEAST_ZERO] = 0
    """Iterations between two evaluations without exploration, in tasks that are not trained on (0: none). The
    save of the best is kept in the folder `best` of the run."""
    eval_tasks: Annotated[int, POSITIVE, OF_EVALUATIONS] = 100
    """Tasks of such an evaluation."""

    @classmethod
    def defaults(cls, given: dict[str, Any]) -> "Config":
        """The settings for the environment in `given`."""
        name = given.get("environment", cls.environment)
        if not name.startswith("diabetes"):
            found = dict(SUITE.get(name, {}))
            if given.get("architecture") == "varibad":
                found |= VARIBAD.get(name, {})
            return cls(environment=name, **found)
        start = 0.0 if name == "diabetes_relative" else -0.5
        return cls(environment=name, **DIABETES, initial_action=start)

    @property
    def by_content(self) -> tuple[str, ...]:
        """Files that may lie elsewhere later: tasks are compared instead, and a start is needed once."""
        return ("population",) * bool(self.population) + ("start_from",) * bool(self.start_from)

    @property
    def iterations(self) -> int:
        """Iterations of training."""
        return self.max_iters


def check_config(config: Config) -> Config:
    """Refuse settings that cannot work together, each with one line that names the flag; return them."""
    check(config)
    check_run_name(config)
    total, batch = config.meta_episodes_per_policy_update, config.meta_episodes_per_learner_batch
    if total % batch:
        raise UserError(
            f"--meta_episodes_per_policy_update {total}: must be a multiple of "
            f"--meta_episodes_per_learner_batch ({batch})"
        )
    alike = config.meta_episodes_per_start
    if (total // batch) % alike:
        raise UserError(
            f"--meta_episodes_per_start {alike}: must divide --meta_episodes_per_policy_update / "
            f"--meta_episodes_per_learner_batch ({total // batch}), so that a gradient step sees one of each"
        )
    known = EXPERTS.get(config.warm_start, config.environment)
    if known != config.environment:
        raise UserError(
            f"--warm_start {config.warm_start}: its expert knows the prior of {known} only, "
            f"not of {config.environment}"
        )
    if config.warm_start != "none" and config.see_task:
        raise UserError(
            f"--warm_start {config.warm_start}: its planner does not see the task; leave out --see_task"
        )
    return config
