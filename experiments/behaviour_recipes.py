"""How PerSim's behaviour and test policies are trained, and what they are to reach."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Training of one environment's policies, all by the same algorithm of stable-baselines3."""

    algorithm: str
    behaviour: tuple[float, float]  # the range of mean returns that such a policy is to have
    test: tuple[float, float]
    max_steps: int  # of one training
    interval: int  # steps between snapshots
    features: tuple[int, ...]  # units of the hidden layers
    settings: dict  # of the algorithm
    stop_above: bool = False  # end once the return is beyond the range: it seldom comes back


RECIPES = {
    "mountain_car": Recipe(
        algorithm="DQN",
        behaviour=(
            -210.0,
            -50.0,
        ),  # with little gravity a policy that arrives at all is good
        test=(-160.0, -140.0),
        max_steps=300_000,
        interval=2000,
        features=(64, 64),
        # What rl-baselines3-zoo found for MountainCar-v0.
        settings={"learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000}
        | {"gamma": 0.98, "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8}
        | {"exploration_fraction": 0.2, "exploration_final_eps": 0.07},
    ),
    "cart_pole": Recipe(
        algorithm="DQN",
        behaviour=(115.0, 125.0),
        test=(145.0, 155.0),
        max_steps=100_000,
        interval=500,
        features=(64, 64),
        settings={"learning_rate": 1e-3, "batch_size": 64, "buffer_size": 50_000, "learning_starts": 1000}
        | {"gamma": 0.99, "target_update_interval": 500, "train_freq": 16, "gradient_steps": 8}
        | {"exploration_fraction": 0.1, "exploration_final_eps": 0.05},
    ),
    "half_cheetah_body": Recipe(
        algorithm="TD3",
        behaviour=(2900.0, 3300.0),
        test=(3900.0, 4300.0),
        max_steps=100_000,  # those that arrive do so within 80,000
        interval=2_500,
        stop_above=True,
        features=(256, 256),
        # The authors' TD3 is standard, with exploration noise 0.1, batches of 256 and a rate of 3e-4. So the
        # first two policies were trained; it takes twice as many steps, each twice as long.
        settings={
            "learning_rate": 1e-3,
            "batch_size": 128,
            "buffer_size": 1_000_000,
            "learning_starts": 10_000,
        }
        | {"gamma": 0.99, "tau": 0.005, "train_freq": 1, "gradient_steps": 1},
    ),
}
