"""What is live, as Watch tells it: a snapshot, then batch after batch. Pure: no clock, no network."""

import collections
import dataclasses
import enum


class State(enum.IntEnum):
    """Generation.State of the API."""

    UNSPECIFIED = 0
    QUEUED = 1
    RUNNING = 2
    PREEMPTED = 3
    PAUSED = 4
    FINISHED = 5


@dataclasses.dataclass
class Live:
    """One generation that is not finished. Tokens are those charged so far."""

    generation_id: str
    tenant: str
    state: State
    revision: int = 0
    mine: bool = False  # PAUSED, and by this orchestrator's session
    resumed: bool = False  # was PAUSED before, so that a slot is meant for it as soon as it is QUEUED
    refused: bool = False  # the server refused a verb for it: left alone until its state changes
    prefilled_tokens: int = 0
    output_tokens: int = 0

    @property
    def has_slot(self):
        """It takes part in steps, or was let go in order to."""
        return self.state in (State.RUNNING, State.PREEMPTED) or self.state == State.QUEUED and self.resumed

    @property
    def wants_slot(self):
        """It would run if it could: a pause that someone else made is no demand."""
        return self.state != State.PAUSED or self.mine and not self.refused


@dataclasses.dataclass(frozen=True)
class Charge:
    """What a token costs a tenant, by its kind."""

    prefilled: float = 0.25
    output: float = 1.0

    def of(self, prefilled_tokens, output_tokens):
        return self.prefilled * prefilled_tokens + self.output * output_tokens


class World:
    """All live generations in order of arrival, and what each tenant was charged.

    State comes from two sides: from Watch, and from the results of the orchestrator's own verbs, which are often
    earlier. Revisions tell which is newer. Tokens come from Watch alone, so none is charged twice.
    """

    def __init__(self, charge=Charge()):
        self.live = {}
        self.charged = collections.Counter()
        self.revision = 0
        self.step = 0
        self._charge = charge

    def replace(self, revision, generations):
        """Takes over a whole snapshot. What a generation used beyond what was charged already is charged now."""
        before, self.live, self.revision = self.live, {}, revision
        for generation in generations:
            known = before.get(generation.generation_id)
            prefilled = generation.prefilled_tokens - (known.prefilled_tokens if known else 0)
            output = generation.output_tokens - (known.output_tokens if known else 0)
            self.charged[generation.tenant] += self._charge.of(max(prefilled, 0), max(output, 0))
            self.live[generation.generation_id] = generation

    def move(self, revision, generation_id, tenant, to):
        """A state changed. A pause seen here first was made by someone else: one's own came as a result before."""
        known = self.live.get(generation_id)
        if to == State.FINISHED:
            self.live.pop(generation_id, None)
        elif known is None:
            self.live[generation_id] = Live(generation_id, tenant, State(to), revision)
        elif revision > known.revision:
            self._change(known, revision, State(to), mine=False)

    def settle(self, generation_id, revision, state, mine):
        """What a verb of one's own came to. Says nothing new if Watch was quicker."""
        known = self.live.get(generation_id)
        if known is not None and revision >= known.revision:
            self._change(known, revision, State(state), mine)

    def refuse(self, generation_id):
        """The server refused a verb for it; Watch will tell what became of it."""
        if generation_id in self.live:
            self.live[generation_id].refused = True

    def progress(self, generation_id, tenant, prefilled_tokens, output_tokens):
        """A step computed tokens of it."""
        self.charged[tenant] += self._charge.of(prefilled_tokens, output_tokens)
        if known := self.live.get(generation_id):
            known.prefilled_tokens += prefilled_tokens
            known.output_tokens += output_tokens

    @staticmethod
    def _change(live, revision, state, mine):
        live.resumed = live.state == State.PAUSED or live.resumed and state != State.PAUSED
        live.state, live.revision, live.mine, live.refused = state, revision, mine, False

    def by_tenant(self):
        """{tenant: its generations that want a slot, oldest first}; tenants without any are left out."""
        tenants = {}
        for generation in self.live.values():
            if generation.wants_slot:
                tenants.setdefault(generation.tenant, []).append(generation)
        return tenants
