"""Fair shares: who may run and who waits. Pure: no clock, no network; the same world gives the same decision."""

import dataclasses
import fractions
import math

from tools.orchestrator.world import State

MAX_IDS = 10000  # in one Apply


@dataclasses.dataclass
class Decision:
    """What to pause and what to continue, at one boundary; and for the log, how many slots each tenant gets."""

    pause: list
    resume: list
    slots: dict

    def __bool__(self):
        return bool(self.pause or self.resume)


class FairShare:
    """Divides slots between the tenants that have work, by their shares.

    - An idle tenant's share is borrowed by the others. When it has work again, the borrowers' newest generations are
      paused and its own continued, in one decision.
    - Work-conserving: while anyone wants a slot, none is left empty. A tenant that is alone is left to the engine's
      own queue altogether.
    - No ping-pong: only whole slots are taken back. The slots that are left over when shares are rounded down stay
      with who has them until a generation there ends; then the tenant that was charged least for its share gets them.
    """

    def __init__(self, shares, slots, bounded=False):
        """shares: {tenant: weight}; others have weight 1. bounded: the engine has more slots than may be used."""
        self.slots = slots
        self._weights = {tenant: fractions.Fraction(weight) for tenant, weight in shares.items()}
        self._bounded = bounded
        self._active = set()
        self._lifted = {}

    def decide(self, world):
        """The Decision that brings `world` to where it should be; false if it is there."""
        tenants = world.by_tenant()
        self._welcome(tenants, world.charged)
        slots = self._divide(tenants, world.charged)
        decision = Decision([], [], slots)
        demand = sum(map(len, tenants.values()))
        free = demand <= self.slots or len(tenants) == 1 and not self._bounded
        for tenant, generations in tenants.items():
            allowed = len(generations) if free else slots[tenant]
            for place, generation in enumerate(generations):
                if generation.refused:
                    continue
                if place < allowed and generation.state == State.PAUSED:
                    decision.resume.append(generation.generation_id)
                elif place >= allowed and generation.state != State.PAUSED:
                    decision.pause.append(generation)
        # Those that run give their slots up first, should there be too many ids for one Apply.
        decision.pause.sort(key=lambda generation: not generation.has_slot)
        decision.resume = decision.resume[:MAX_IDS]
        decision.pause = [generation.generation_id for generation in decision.pause[:MAX_IDS - len(decision.resume)]]
        return decision

    def _weight(self, tenant):
        return self._weights.get(tenant, fractions.Fraction(1))

    def _service(self, tenant, charged):
        """What it was charged for each unit of its share."""
        return charged[tenant] / float(self._weight(tenant)) + self._lifted.get(tenant, 0.0)

    def _welcome(self, tenants, charged):
        """A tenant that comes back begins level with those that worked meanwhile: rest cannot be saved up."""
        present = [self._service(tenant, charged) for tenant in self._active if tenant in tenants]
        for tenant in tenants:
            if tenant not in self._active and present:
                behind = min(present) - self._service(tenant, charged)
                self._lifted[tenant] = self._lifted.get(tenant, 0.0) + max(behind, 0.0)
        self._active = set(tenants)

    def _divide(self, tenants, charged):
        """{tenant: slots}, whole ones, all that can be used."""
        exact = entitlements({tenant: len(generations) for tenant, generations in tenants.items()},
                             {tenant: self._weight(tenant) for tenant in tenants}, self.slots)
        slots = {tenant: math.floor(share) for tenant, share in exact.items()}
        left = round(sum(exact.values())) - sum(slots.values())
        held = {tenant: sum(generation.has_slot for generation in tenants[tenant]) for tenant in tenants}
        rest = [tenant for tenant in exact if exact[tenant] > slots[tenant]]
        rest.sort(key=lambda tenant: (held[tenant] <= slots[tenant], self._service(tenant, charged), tenant))
        for tenant in rest[:left]:
            slots[tenant] += 1
        return slots


def entitlements(demand, weights, slots):
    """The exact share of each tenant, none above its demand: what one cannot use the others get, by weight."""
    exact, remaining, tenants = {}, fractions.Fraction(slots), set(demand)
    while tenants:
        total = sum(weights[tenant] for tenant in tenants)
        content = {tenant for tenant in tenants if demand[tenant] * total <= remaining * weights[tenant]}
        if not content:
            exact.update({tenant: remaining * weights[tenant] / total for tenant in tenants})
            break
        exact.update({tenant: fractions.Fraction(demand[tenant]) for tenant in content})
        remaining -= sum(demand[tenant] for tenant in content)
        tenants -= content
    return exact
