"""The local engine: every site in this process, one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from causalcxr.federation.messages import Message
from causalcxr.federation.sites import Site
from causalcxr.federation.worker import Worker

__all__ = ["LocalEngine"]


@dataclass(frozen=True)
class LocalEngine:
    """Sites that share one worker, for they are asked in turn and every question brings its state along."""

    worker: Worker
    sites: Sequence[Site]

    def ask(self, questions: Sequence[tuple[int, Message]]) -> Iterator[Message]:
        """Answers in the order of the questions, each worked out when it is taken."""
        for site, message in questions:
            yield self.worker.answer(self.sites[site], message)

    def tell(self, message: Message) -> None:
        self.worker.take_in(message)
