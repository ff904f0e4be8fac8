"""RL^2 on tabular MDPs as one compiled JAX program, for its speed: python -m benchmarks.peers.jax_rl2 [flags]

All of an iteration, environments included, is one compiled function, as in the fast JAX libraries of today:
play `--meta_episodes` of `--length` steps, GAE, then PPO over whole sequences with Adam. The network is that
of `train rl2 --transition_encoder plain --readout linear`: an LSTM on the paper's input and one linear map,
in float32. It stands alone, needs `pip install -e '.[peers]'`, and prints one JSON line.
"""

import argparse
import json
import os
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

STATES, ACTIONS, EPISODE = 10, 5, 10
INPUTS = STATES + ACTIONS + 2
GAMMA, LAMBDA, CLIP, ENTROPY, REWARD_SCALE = 0.95, 0.8, 0.2, 0.02, 0.03
Weights = dict[str, jax.Array]


class Steps(NamedTuple):
    """What is learnt from, time-major."""

    inputs: jax.Array  # [T, N, INPUTS]
    action: jax.Array  # [T, N]
    log_prob: jax.Array  # [T, N]
    reward: jax.Array  # [T, N]
    value: jax.Array  # [T, N]


def fresh_weights(key: jax.Array, units: int) -> Weights:
    """Of an LSTM of so many units and its linear readout."""
    first, second, third = jax.random.split(key, 3)
    bound = units**-0.5
    draw = partial(jax.random.uniform, minval=-bound, maxval=bound)
    return {
        "input": draw(first, (INPUTS, 4 * units)),
        "memory": draw(second, (units, 4 * units)),
        "bias": jnp.zeros(4 * units).at[units : 2 * units].set(1.0),
        "out": 0.01 * draw(third, (units, ACTIONS + 1)),
        "out_bias": jnp.zeros(ACTIONS + 1),
    }


def cell(weights: Weights, state: tuple, projected: jax.Array) -> tuple[tuple, jax.Array]:
    """A step of the LSTM; the input `[N, 4 units]` is already multiplied by its weights."""
    hidden, memory = state
    gates = projected + hidden @ weights["memory"]
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(leave) * jnp.tanh(memory)
    return (hidden, memory), hidden


def read(weights: Weights, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logarithms of probabilities `[..., ACTIONS]` and values `[...]`."""
    outputs = hidden @ weights["out"] + weights["out_bias"]
    return jax.nn.log_softmax(outputs[..., :ACTIONS]), outputs[..., ACTIONS]


def play(weights: Weights, key: jax.Array, num: int, length: int) -> Steps:
    """A meta-episode in each of `num` fresh tasks."""
    units = weights["memory"].shape[0]
    first, second, third = jax.random.split(key, 3)
    transition = jax.random.exponential(first, (num, STATES, ACTIONS, STATES))
    bounds = jnp.cumsum(transition / transition.sum(-1, keepdims=True), axis=-1)
    mean = 1 + jax.random.normal(second, (num, STATES, ACTIONS))
    rows = jnp.arange(num)

    def step(carry: tuple, at: tuple) -> tuple[tuple, Steps]:
        memory, state, inputs = carry
        time_step, key = at
        memory, hidden = cell(weights, memory, inputs @ weights["input"] + weights["bias"])
        log_probs, value = read(weights, hidden)
        acting, moving, noise = jax.random.split(key, 3)
        action = jax.random.categorical(acting, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        uniform = jax.random.uniform(moving, (num, 1))
        reward = mean[rows, state, action] + jax.random.normal(noise, (num,))
        done = (time_step + 1) % EPISODE == 0
        state = jnp.where(done, 0, (bounds[rows, state, action] < uniform).sum(-1).clip(0, STATES - 1))
        told = (reward[:, None], jnp.full((num, 1), done, jnp.float32))
        following = jnp.concatenate(
            [jax.nn.one_hot(state, STATES), jax.nn.one_hot(action, ACTIONS), *told], 1
        )
        return (memory, state, following), Steps(inputs, action, log_prob, reward, value)

    state = jnp.zeros(num, jnp.int32)
    begin = jnp.zeros((num, INPUTS)).at[:, 0].set(1.0).at[:, -1].set(1.0)
    empty = (jnp.zeros((num, units)), jnp.zeros((num, units)))
    _, steps = jax.lax.scan(
        step, (empty, state, begin), (jnp.arange(length), jax.random.split(third, length))
    )
    return steps


def advantages(steps: Steps) -> jax.Array:
    """GAE `[T, N]` over whole meta-episodes."""

    def back(carry: tuple, at: tuple) -> tuple[tuple, jax.Array]:
        advantage, next_value = carry
        reward, value = at
        advantage = reward + GAMMA * next_value - value + GAMMA * LAMBDA * advantage
        return (advantage, value), advantage

    zeros = jnp.zeros_like(steps.value[0])
    scaled = REWARD_SCALE * steps.reward
    _, advantage = jax.lax.scan(back, (zeros, zeros), (scaled, steps.value), reverse=True)
    return advantage


def loss(weights: Weights, steps: Steps, advantage: jax.Array, target: jax.Array) -> jax.Array:
    """PPO's over whole meta-episodes `[T, n]`."""
    units = weights["memory"].shape[0]
    projected = steps.inputs @ weights["input"] + weights["bias"]  # of all steps in one product
    empty = (jnp.zeros((projected.shape[1], units)),) * 2
    _, hidden = jax.lax.scan(partial(cell, weights), empty, projected)
    log_probs, value = read(weights, hidden)
    log_prob = jnp.take_along_axis(log_probs, steps.action[..., None], -1)[..., 0]
    ratio = jnp.exp(log_prob - steps.log_prob)
    surrogate = jnp.minimum(ratio * advantage, ratio.clip(1 - CLIP, 1 + CLIP) * advantage).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return -surrogate + 0.25 * jnp.square(value - target).mean() - ENTROPY * entropy


@partial(jax.jit, static_argnames=("sizes", "optimiser"), donate_argnums=(0, 1))
def iterate(weights: Weights, moments: Any, key: jax.Array, sizes: tuple, optimiser: Any) -> tuple:
    """One iteration; the mean return of its meta-episodes comes along."""
    num, length, minibatch, epochs = sizes
    playing, *shuffling = jax.random.split(key, 1 + epochs)
    steps = play(weights, playing, num, length)
    raw = advantages(steps)
    target, advantage = raw + steps.value, (raw - raw.mean()) / (raw.std() + 1e-8)

    def learn(carry: tuple, columns: jax.Array) -> tuple[tuple, None]:
        weights, moments = carry
        chosen = jax.tree.map(lambda x: x[:, columns], (steps, advantage, target))
        change, moments = optimiser.update(jax.grad(loss)(weights, *chosen), moments, weights)
        return (optax.apply_updates(weights, change), moments), None

    order = jnp.concatenate([jax.random.permutation(k, num).reshape(-1, minibatch) for k in shuffling])
    (weights, moments), _ = jax.lax.scan(learn, (weights, moments), order)
    return weights, moments, steps.reward.sum(0).mean()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta_episodes", type=int, default=960, help="in an iteration")
    parser.add_argument("--length", type=int, default=100, help="steps of a meta-episode")
    parser.add_argument("--minibatch", type=int, default=60, help="meta-episodes in a gradient step")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--learning_rate", type=float, default=5e-3)
    parser.add_argument("--iterations", type=int, default=5, help="measured, after one that compiles")
    flags = parser.parse_args()
    sizes = (flags.meta_episodes, flags.length, flags.minibatch, flags.epochs)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(flags.learning_rate, eps=1e-5))
    key = jax.random.key(0)
    weights = fresh_weights(key, flags.units)
    moments = optimiser.init(weights)
    seconds, processor, returns = [], [], []
    for i in range(1 + flags.iterations):
        began, busy = time.perf_counter(), time.process_time()
        weights, moments, mean = iterate(weights, moments, jax.random.fold_in(key, i), sizes, optimiser)
        returns.append(round(float(mean), 1))  # waits for the result
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    steps = flags.meta_episodes * flags.length
    middle = sorted(seconds[1:])[flags.iterations // 2], sorted(processor[1:])[flags.iterations // 2]
    found = {
        "peer": f"jax {jax.__version__}, {jax.devices()[0].platform}",
        "steps_per_s": round(steps / middle[0]),
        "steps_per_processor_s": round(steps / middle[1]),
        "compile_s": round(seconds[0] - middle[0], 1),
        "weights": sum(w.size for w in weights.values()),
        "returns": [returns[0], returns[-1]],
        "cores": len(os.sched_getaffinity(0)),
        "settings": vars(flags),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
