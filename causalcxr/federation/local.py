"""The local engine: all sites in this process, round by round, resumable bit for bit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from causalcxr.federation.learner import Learner, Site
from causalcxr.federation.strategies import STRATEGIES, Plan, State
from causalcxr.support.files import load_tensors, save_tensors
from causalcxr.support.progress import progress_bar

__all__ = ["run_strategy"]


def run_strategy(
    strategy: str,
    learner: Learner,
    sites: Sequence[Site],
    plan: Plan,
    steps: int,
    folder: Path,
    after: Callable[[int, State], None],
    every: int = 1,
) -> Mapping[str, Tensor]:
    """All rounds of a strategy from the learner's present state; the state after the last.

    `steps` a visit. `after(round, state)` is called behind each round. The state of every `every`-th round is kept
    in `folder`, from which a killed process goes on.
    """
    path = folder / f"{strategy}.safetensors"
    state: State = learner.state()
    begun = 0
    if path.exists():
        state, facts = load_tensors(path)
        begun = facts["rounds"]

    def visit(which: Sequence[int], given: State, round_: int) -> list[State]:
        return [learner.visit(sites[site], given, round_, steps) for site in which]

    with progress_bar(strategy, plan.rounds, begun) as advance:
        for round_ in range(begun, plan.rounds):
            state = STRATEGIES[strategy](visit, state, plan, round_)
            if (round_ + 1) % every == 0 or round_ + 1 == plan.rounds:
                save_tensors(path, state, {"rounds": round_ + 1})
            after(round_, state)
            advance("")
    learner.load(state)
    return state
