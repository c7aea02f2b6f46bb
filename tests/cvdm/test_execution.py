"""How training steps are run changes what they cost, not what they teach."""

from dataclasses import replace

import pytest
import torch
from specimens import TINY_RECIPE
from torch._inductor import config as inductor

from cvdm import training
from cvdm.config import ModelConfig, NetworkConfig, TrainingConfig
from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError, TrainingError
from cvdm.execution import determinism, prepare, require_determinism
from cvdm.gradients import Batch, accumulate_gradient
from cvdm.losses import batch_losses
from cvdm.model import CVDM
from cvdm.networks import Block
from cvdm.training import train
from cvdm.training_state import TrainingState, read_state

MODEL = ModelConfig(NetworkConfig(width=8, levels=3, stem=1), NetworkConfig(width=8, levels=3))


@pytest.fixture(scope="module")
def dataset(cells_dataset):
    return load_dataset(cells_dataset)


def model() -> CVDM:
    """One that says something: the output layers are not zero."""
    torch.manual_seed(0)
    made = CVDM(MODEL)
    for name, parameter in made.named_parameters():
        if "leave.conv" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def batch(count: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(1)
    y = torch.randn(count, 1, 32, 32, generator=rng)
    return Batch.drawn(y + 0.3 * torch.randn(y.shape, generator=rng), y, 0, 0)


def gradient(objective=batch_losses, **choices) -> tuple[torch.Tensor, dict[str, float]]:
    """Of the whole model, as one vector, and the terms of the objective."""
    made = model()
    prepare(made, TrainingConfig(**choices), "cpu")
    losses = accumulate_gradient(made, batch(), objective, smoothness=1e-3, pieces=1, device="cpu")
    return torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None]), losses


def kept_bytes(**choices) -> int:
    """What one forward pass keeps for the backward pass, each storage once."""
    made, kept = model(), {}
    objective = prepare(made, TrainingConfig(**choices), "cpu")

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor  # alive, so that no other storage gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = objective(made, *batch().piece(0, 4, "cpu")).total(1e-3)
    assert total.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_step_in_bf16_points_where_one_in_fp32_does():
    """The gradients' cosine is near one, no loss moves by a percent, and it really is another type."""
    (full, exact), (half, rounded) = gradient(), gradient(precision="bf16")
    assert torch.nn.functional.cosine_similarity(full, half, dim=0) > 0.99
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    assert rounded == pytest.approx(exact, rel=1e-2)


def test_only_the_unets_compute_in_bf16():
    """Their convolutions do; schedule, scale, what they return and every term of the objective are fp32."""
    made, seen = model(), {}
    objective = prepare(made, TrainingConfig(precision="bf16"), "cpu")
    for name, module in made.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    losses = objective(made, *batch().piece(0, 4, "cpu"))
    for network in ("mean_network", "denoiser"):
        assert seen[f"{network}.down.1.0.first"] == torch.bfloat16 and seen[network] == torch.float32
    assert seen["schedule.network.inner"] == seen["scale_network.inner"] == torch.float32
    assert all(term.dtype == torch.float32 for term in vars(losses).values())


def test_a_training_in_bf16_leaves_fp32(dataset, tmp_path):
    """Weights, averaged weights and the optimiser's moments are stored in fp32."""
    recipe = with_training(precision="bf16")
    list(train(dataset, recipe, state_path=tmp_path / "state.pt"))
    content = read_state(tmp_path / "state.pt")
    moments = [v for one in content["optimiser"]["state"].values() for v in one.values()]
    for tensor in [*content["model"].values(), *content["average"].values(), *moments]:
        assert tensor.dtype == torch.float32


def test_recomputed_activations_give_the_same_gradient():
    """Bit for bit on a CPU: the same operations run, later."""
    (kept, losses), (again, same) = gradient(), gradient(recompute=True)
    assert torch.equal(kept, again) and losses == same


def test_recomputation_keeps_less():
    """The graph of one step holds less than two thirds of what it held."""
    assert kept_bytes(recompute=True) < 0.67 * kept_bytes()


def test_the_objective_is_one_graph():
    """Dynamo takes it whole, without a break, and what it took computes the same."""
    torch.compiler.reset()
    choices = {"recompute": True, "precision": "bf16"}
    graph = torch.compile(batch_losses, backend="aot_eager", fullgraph=True)
    (eager, losses), (compiled, same) = gradient(**choices), gradient(graph, **choices)
    assert same == pytest.approx(losses, rel=1e-3, abs=1e-5)
    assert torch.nn.functional.cosine_similarity(eager, compiled, dim=0) > 0.9999


@pytest.mark.slow
def test_compiled_training_comes_to_the_same(dataset, tmp_path):
    """With the real compiler: the same names, and the same weights up to rounding."""
    found = {}
    for compiled in (False, True):
        path = tmp_path / f"{compiled}.pt"
        list(train(dataset, with_training(compile=compiled), state_path=path))
        found[compiled] = read_state(path)["average"]
    assert list(found[False]) == list(found[True])
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-3, atol=1e-4)


def test_no_compiler_is_told_before_the_first_step(dataset, tmp_path):
    """On a machine without one, the message says what to install or to switch off."""
    torch.compiler.reset()
    recipe, path = with_training(compile=True), tmp_path / "state.pt"
    bare = {"cpp.cxx": (str(tmp_path / "none"),), "force_disable_caches": True}
    with inductor.patch(bare), pytest.raises(TrainingError, match=r"a compiler .* set training\.compile to"):
        next(train(dataset, recipe, state_path=path))
    assert not path.exists()


def flags():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def test_determinism_lasts_for_a_step(dataset, tmp_path, monkeypatch):
    """Steps and validations run under it; between them, and after a failure, the process is as it was."""
    before, during = flags(), []
    real = training._advance
    monkeypatch.setattr(training, "_advance", lambda *rest: (during.append(flags()), real(*rest))[1])
    for _ in train(dataset, with_training(deterministic=True), state_path=tmp_path / "state.pt"):
        assert flags() == before
    assert during == [(True, True, False)] * 4
    with pytest.raises(RuntimeError, match="deterministic"), determinism(True):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))  # either may win
    assert flags() == before


def test_determinism_changes_no_weight_on_a_cpu(dataset, tmp_path):
    """There, training repeats bit for bit without it."""
    require_determinism("cpu")
    for name, chosen in (("a", False), ("b", True)):
        list(train(dataset, with_training(deterministic=chosen), state_path=tmp_path / name))
    one, other = (read_state(tmp_path / name)["model"] for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_activations_are_channels_last():
    """By the weights' format, whatever the images' own, also after loading, at every level."""
    made = TrainingState(replace(TINY_RECIPE, model=MODEL), "cpu").model
    made.load_state_dict({name: value.contiguous() for name, value in made.state_dict().items()})
    formats = []
    for module in made.modules():
        if isinstance(module, Block):
            module.register_forward_hook(
                lambda _, __, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    batch_losses(made, *batch().piece(0, 4, "cpu"))
    assert len(formats) == 10 and all(formats)


def test_a_batch_is_cut_as_asked_from_the_start(dataset, tmp_path):
    """Gradient accumulation by choice: no news, the same weights; more parts than patches are refused."""
    list(train(dataset, with_training(), state_path=tmp_path / "whole.pt"))
    steps = list(train(dataset, with_training(pieces=2), state_path=tmp_path / "cut.pt"))
    assert {(step.pieces, step.cut) for step in steps} == {(2, False)}
    one, other = (read_state(tmp_path / f"{name}.pt")["average"] for name in ("whole", "cut"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match=r"training\.pieces of at most training\.batch, 2"):
        with_training(pieces=3)


def test_how_a_training_runs_may_change_while_it_lasts(dataset, tmp_path):
    """What changes rounding alone continues a state; the precision is part of what a training is."""
    state = tmp_path / "state.pt"
    next(train(dataset, TINY_RECIPE, state_path=state))
    next(train(dataset, with_training(pieces=2, recompute=True, deterministic=True), state_path=state))
    assert read_state(state)["step"] == 2
    with pytest.raises(TrainingError, match="one of another training"):
        next(train(dataset, with_training(precision="bf16"), state_path=state))


def with_training(**choices):
    return replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, **choices))
