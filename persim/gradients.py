"""What an error costs, and the gradient of PerSim's loss written out in NumPy.

With one hidden layer a gradient step is so short that automatic differentiation would take half of the time.
The tests hold the written gradient against PyTorch's of the formula in `Learner.gradient`.
"""

import numpy as np
import torch

from persim.simulator import Simulator

threshold_backward = torch.ops.aten.threshold_backward.grad_input


def huber(error: torch.Tensor, delta: torch.Tensor | None) -> torch.Tensor:
    """Squares of `error` [..., d], beyond `delta` [d] their tangents (Huber); None: squares everywhere."""
    if delta is None:
        return error.square()
    size = error.abs()
    return torch.where(size <= delta, size.square(), delta * (2 * size - delta))


def can_be_written(simulator: Simulator) -> bool:
    """Whether `WrittenGradient` knows this simulator: discrete actions, one hidden layer, on a processor."""
    on_processor = simulator.noise.device.type == "cpu"
    return bool(simulator.num_actions) and len(simulator.state_net) == 2 and on_processor


class WrittenGradient:
    """The loss's gradient where `can_be_written`; arrays share the memory of the parameters.

    Batches are the last axis: the few factors of a transition would make slow inner loops.
    """

    def __init__(self, simulator: Simulator, huber_delta: torch.Tensor | None = None) -> None:
        self.huber_delta = None if huber_delta is None else huber_delta.numpy()[:, None]
        self.state_size, self.d, self.r = simulator.state_size, simulator.target_size, simulator.num_factors
        first, last = simulator.state_net
        (self.first, self.first_grad), (self.last, self.last_grad) = shared(first), shared(last)
        self.tables = [
            Table(simulator.agent, simulator.agent_bias),
            Table(simulator.action, simulator.action_bias),
        ]
        self.hidden = np.empty((0, 0, 0), np.float32)

    def __call__(
        self,
        state: torch.Tensor,
        target: torch.Tensor,
        agent: torch.Tensor,
        action: torch.Tensor,
        scale: float,
    ) -> np.ndarray:
        """Write the gradient of `scale * huber(error).sum()` over the present one; squared errors [M, d].

        `state` [M, B, D] as it enters the simulator and `target` [M, B, d] are in its own units; squared
        errors are summed over the batch.
        """
        (M, B, D), d = state.shape, self.d
        x = self.allocate(M, B)
        x[:, :, :D] = state.numpy()
        u, w = (table.forward(index) for table, index in zip(self.tables, (agent, action), strict=True))

        np.matmul(self.first, x.transpose(0, 2, 1), out=self.hidden[:, :-1])
        units = torch.from_numpy(self.hidden)[:, :-1].relu_()
        v = np.matmul(self.last, self.hidden).reshape(M, d, self.r, B)
        factor = u * w
        error = (v * factor[:, None]).sum(2)
        error -= target.numpy().transpose(0, 2, 1)
        squares = np.einsum("mdb,mdb->md", error, error)
        if self.huber_delta is not None:
            np.clip(error, -self.huber_delta, self.huber_delta, out=error)
        error *= np.float32(2 * scale)

        by_factor = (v * error[:, :, None]).sum(1)
        by_v = np.multiply(error[:, :, None], factor[:, None], out=v).reshape(M, d * self.r, B)
        np.matmul(by_v, self.hidden.transpose(0, 2, 1), out=self.last_grad)
        np.matmul(self.last[:, :, :-1].transpose(0, 2, 1), by_v, out=self.back)
        back = torch.from_numpy(self.back)
        threshold_backward(back, units, 0, grad_input=back)
        np.matmul(self.back, x, out=self.first_grad)
        self.tables[0].backward(by_factor * w)
        self.tables[1].backward(by_factor * u)
        return squares

    def allocate(self, M: int, B: int) -> np.ndarray:
        """Arrays for a batch; a last unit that is always 1 brings the biases. Gives inputs [M, B, D + 1]."""
        if self.hidden.shape[2] != B:
            H = self.first.shape[1]
            self.x = np.ones((M, B, self.state_size + 1), np.float32)
            self.hidden = np.ones((M, H + 1, B), np.float32)
            self.back = np.empty((M, H, B), np.float32)
        return self.x


class Table:
    """Factors looked up in rows and one bias; gradients are added up by row, never through one-hot rows."""

    def __init__(self, table: torch.nn.Parameter, bias: torch.nn.Parameter) -> None:
        (self.table, self.grad), (self.bias, self.bias_grad) = shared(table), shared(bias)
        self.first_row = torch.arange(len(table))[:, None] * table.shape[1]

    def forward(self, index: torch.Tensor) -> np.ndarray:
        """Factors [M, r, B] of `index` [M, B]."""
        M, n, r = self.table.shape
        self.row = (index + self.first_row).view(-1)
        factors = self.table.reshape(M * n, r).take(self.row.numpy(), axis=0).reshape(M, -1, r)
        return np.add(factors, self.bias).transpose(0, 2, 1).copy()

    def backward(self, error: np.ndarray) -> None:
        """Gradients from those of the factors, `error` [M, r, B]."""
        r = error.shape[1]
        self.grad[:] = 0
        by_row = torch.from_numpy(np.ascontiguousarray(error.transpose(0, 2, 1))).view(-1, r)
        torch.from_numpy(self.grad).view(-1, r).index_add_(0, self.row, by_row)
        np.sum(error.transpose(0, 2, 1), 1, keepdims=True, out=self.bias_grad)


def shared(parameter: torch.nn.Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradient of a parameter as NumPy arrays that share its memory."""
    assert parameter.grad is not None
    return parameter.detach().numpy(), parameter.grad.numpy()
