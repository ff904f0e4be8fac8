"""How the encoder of VariBAD is trained: a buffer of meta-episodes, and gradient steps on their ELBO."""

from typing import Any

import numpy as np
import torch
from torch import nn

from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.runs.seeding import SharedStream, stream
from mpi_utils.comm import Comm, Piece
from mpi_utils.sync import FlatGradients, broadcast_parameters
from rl2.belief import BeliefPolicy
from rl2.config import Config
from rl2.rollout import MetaEpisodes
from rl2.vae import Decoders, Draws, Steps, negative_elbo

EPSILON = 1e-8  # Adam's: gradients of mean errors are small


class Buffer:
    """The meta-episodes of the last `blocks` iterations of this rank's rows of the matrix of meta-episodes.

    `Learner` says what a row is. A block is what one iteration adds to a row. Arrays are `[rows, blocks x
    block, T, ...]`; the oldest block is overwritten.
    """

    def __init__(self, rows: slice, num_rows: int, blocks: int, block: int, num_steps: int, device: str):
        self.rows, self.num_rows, self.device = rows, num_rows, device
        self.blocks, self.block, self.num_steps = blocks, block, num_steps
        self.num_local, self.added = rows.stop - rows.start, 0  # iterations
        self.held: dict[str, torch.Tensor] = {}

    @property
    def size(self) -> int:
        """Meta-episodes in a row."""
        return min(self.added, self.blocks) * self.block

    def add(self, batch: MetaEpisodes | None) -> None:
        """Take in what one iteration played; None of an empty share."""
        place = self.added % self.blocks * self.block
        self.added += 1
        if batch is None or batch.reached is None:
            return
        steps = len(batch.reward)
        length = torch.full_like(batch.reward[0], steps) if batch.live is None else batch.live.sum(0)
        arrays = {name: getattr(batch, name).movedim(0, 1) for name in Steps._fields[:-1]}
        arrays["length"] = length
        for name, array in arrays.items():
            # Whole numbers need no 64 bits. What lies behind the end of a shorter iteration does not count.
            array = array.unflatten(0, (self.num_local, self.block))
            array = array.to(torch.float32 if array.is_floating_point() and name != "length" else torch.int32)
            if name not in self.held:
                sizes = array.shape[2:] if name == "length" else (self.num_steps, *array.shape[3:])
                shape = (self.num_local, self.blocks * self.block, *sizes)
                self.held[name] = torch.zeros(shape, dtype=array.dtype, device=self.device)
            target = self.held[name][:, place : place + self.block]
            (target if name == "length" else target[:, :, :steps])[:] = array

    def take(self, columns: torch.Tensor) -> Steps:
        """One meta-episode of each row `[rows]`, up to the longest end."""
        index = torch.arange(self.num_local, device=columns.device)
        parts = {name: array[index, columns] for name, array in self.held.items()}
        length = parts.pop("length")
        longest = int(length.max())
        whole = {name: part[:, :longest].movedim(0, 1).contiguous() for name, part in parts.items()}
        whole = {name: part if part.is_floating_point() else part.long() for name, part in whole.items()}
        return Steps(**whole, length=length)

    def state_dict(self, comm: Comm) -> dict[str, Any]:
        """All rows of all ranks; a collective."""
        if comm.in_pieces:
            held = {name: a[:, : self.size].cpu() for name, a in self.held.items()}
            pieces = {name: Piece(a, self.rows, self.num_rows, 0) for name, a in held.items()}
            return {"added": self.added, "arrays": pieces}
        shapes = comm.allgather_object({n: (tuple(a.shape[1:]), a.dtype) for n, a in self.held.items()})[0]
        arrays = {}
        for name, (shape, dtype) in shapes.items():
            everyone = torch.zeros(self.num_rows, self.size, *shape[1:], dtype=dtype)
            if self.num_local:
                everyone[self.rows] = self.held[name][:, : self.size].cpu()
            comm.allreduce_(everyone.view(torch.int32))  # bits, so that no zero loses its sign
            arrays[name] = everyone
        return {"added": self.added, "arrays": arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.added, self.held = state["added"], {}
        if not self.num_local:
            return
        for name, array in state["arrays"].items():
            whole = torch.as_tensor(array)[self.rows]
            shape = (self.num_local, self.blocks * self.block, *whole.shape[2:])
            self.held[name] = torch.zeros(shape, dtype=whole.dtype, device=self.device)
            self.held[name][:, : self.size] = whole.to(self.device)


class VaeLearner:
    """Trains the encoder of a `BeliefPolicy` with decoders; the same numbers at any number of ranks.

    A gradient step takes one meta-episode of each row of the buffer, so every rank has its share of it.
    """

    def __init__(self, config: Config, comm: Comm, policy: BeliefPolicy, rows: slice, block: int):
        self.config, self.comm, self.policy, self.rows = config, comm, policy, rows
        self.num_rows = config.meta_episodes_per_learner_batch
        self.decoders = Decoders(config, policy.features)
        self.buffer = Buffer(
            rows, self.num_rows, config.vae_buffer, block, config.meta_episode_len, config.device
        )

    def to(self, device: str) -> None:
        """Move there what is learnt, with the policy at its place already, and make the optimiser."""
        self.decoders.to(device)
        broadcast_parameters(self.comm, self.decoders)
        module = nn.ModuleList([self.policy.encoder, self.decoders])
        self.gradients = FlatGradients(self.comm, list(module.parameters()))
        config = self.config
        self.optimiser = make_adamw(module.parameters(), config.vae_learning_rate, EPSILON)

    def train_iteration(self, i: int, batch: MetaEpisodes | None) -> dict[str, float]:
        """Add what was played, then some gradient steps; the means of their metrics over all ranks."""
        config = self.config
        self.buffer.add(batch)
        names = [f"vae/{name}_error" for name in ("reward", "state") if config.decode in (name, "both")]
        names += ["vae/kl", "vae/loss"]
        totals = np.zeros(len(names))
        # Epochs of PPO have the indices before.
        rng = SharedStream(stream(config.seed, "minibatches", i, config.num_epochs), self.num_rows, self.rows)
        num_local = self.rows.stop - self.rows.start
        for _ in range(config.vae_updates):
            self.gradients.zero()
            metrics = dict.fromkeys(names, 0.0)
            columns = torch.from_numpy((rng.random(num_local) * self.buffer.size).astype(np.int64))
            drawn = self.draw(rng, num_local)
            if num_local:
                steps = self.buffer.take(columns.to(config.device))
                num = len(steps.reward)  # all of them are fewer where all meta-episodes ended early
                draws = drawn if config.elbo_terms else drawn._replace(noise=drawn.noise[:, :num])
                loss, parts = negative_elbo(
                    self.policy.encoder, self.decoders, self.policy.features, steps, draws, config.kl_weight
                )
                loss.backward()
                found = {"kl": parts.pop("kl"), "loss": loss} | {f"{n}_error": p for n, p in parts.items()}
                metrics = {f"vae/{name}": value.item() for name, value in found.items()}
            totals += self.gradients.average(float(num_local), [metrics[name] for name in names])
            self.gradients.clip(config.max_grad_norm)
            self.optimiser.step()
        return dict(zip(names, totals / config.vae_updates, strict=True))

    def draw(self, rng: Any, num: int) -> Draws:
        """What the ELBO of `num` meta-episodes is estimated by."""
        config = self.config

        def steps(how_many: int) -> torch.Tensor | None:
            if not how_many:
                return None
            return torch.from_numpy(rng.random((num, how_many), np.float32)).to(config.device)

        terms, decoded = steps(config.elbo_terms), steps(config.elbo_steps)
        shape = (num, config.elbo_terms or config.meta_episode_len, config.latent_size)
        noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(config.device)
        return Draws(terms, decoded, noise)

    def state_dict(self) -> dict[str, Any]:
        """Decoders, the optimiser and the buffer; a collective."""
        return {
            "decoders": dict(self.decoders.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
            "buffer": self.buffer.state_dict(self.comm),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.decoders.load_state_dict(state["decoders"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        self.buffer.load_state_dict(state["buffer"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        named = dict(self.decoders.state_dict()) | optimiser_state(self.optimiser)
        return {f"vae.{name}": tensor for name, tensor in named.items()}
