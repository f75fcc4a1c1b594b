"""Fair shares decided on worlds made by hand: what is lent, what is taken back, and that nothing flaps.

Method: a small engine of this file runs the oldest generations that are not paused, as the real one does, and every
decision is put into effect before the next.
"""

import random
import unittest

from tests.style.xml_main import main
from tools.orchestrator.policy import FairShare, entitlements
from tools.orchestrator.world import Live, State, World


class Engine:
    """Runs the oldest generations that are not paused, in at most `slots` slots, and tells a World."""

    def __init__(self, policy, slots):
        self.world, self.policy, self.slots, self.count, self.decisions = World(), policy, slots, 0, []

    def enqueue(self, tenant, count=1):
        ids = [f"{tenant}{self.count + place}" for place in range(count)]
        self.count += count
        for generation_id in ids:
            self._tell(generation_id, State.QUEUED, tenant)
        return ids

    def finish(self, generation_id):
        self._tell(generation_id, State.FINISHED)

    def _tell(self, generation_id, state, tenant=""):
        self.world.revision += 1
        self.world.move(self.world.revision, generation_id, tenant, state)

    def decide(self):
        """One decision and its effect; then the engine fills its slots."""
        decision = self.policy.decide(self.world)
        if decision:
            self.decisions.append(decision)
        self.world.revision += 1
        for ids, state in ((decision.pause, State.PAUSED), (decision.resume, State.PREEMPTED)):
            for generation_id in ids:
                self.world.settle(generation_id, self.world.revision, state, mine=state == State.PAUSED)
        running = sum(live.state == State.RUNNING for live in self.world.live.values())
        for live in list(self.world.live.values()):
            if running < self.slots and live.state in (State.QUEUED, State.PREEMPTED):
                self._tell(live.generation_id, State.RUNNING)
                running += 1
        return decision

    def step(self, tokens=1):
        for live in self.world.live.values():
            if live.state == State.RUNNING:
                self.world.progress(live.generation_id, live.tenant, 0, tokens)

    def running(self, tenant):
        return [live.generation_id for live in self.world.live.values()
                if live.tenant == tenant and live.state == State.RUNNING]


def engine(slots=4, bounded=False, **shares):
    return Engine(FairShare(shares, slots, bounded), slots)


class BorrowingTest(unittest.TestCase):

    def test_a_tenant_alone_is_left_to_the_engine(self):
        world = engine(red=1, blue=1)
        world.enqueue("red", 20)
        self.assertFalse(world.decide())
        self.assertEqual(len(world.running("red")), 4)

    def test_the_owner_takes_its_share_back_from_the_newest_in_one_decision(self):
        world = engine(red=1, blue=1)
        red = world.enqueue("red", 6)
        world.decide()
        blue = world.enqueue("blue", 3)
        decision = world.decide()
        self.assertCountEqual(decision.pause, red[2:] + blue[2:])
        self.assertEqual(decision.resume, [])
        self.assertEqual(decision.slots, {"red": 2, "blue": 2})
        self.assertEqual((world.running("red"), world.running("blue")), (red[:2], blue[:2]))
        self.assertFalse(world.decide(), "and that is all")

    def test_pausing_and_continuing_go_together(self):
        world = engine(red=1, blue=1)
        red = world.enqueue("red", 6)
        world.decide()
        blue = world.enqueue("blue", 1)
        self.assertCountEqual(world.decide().pause, red[3:])
        blue += world.enqueue("blue", 4)
        self.assertCountEqual(world.decide().pause, red[2:3] + blue[2:])
        world.finish(blue[0])
        decision = world.decide()
        self.assertEqual((decision.pause, decision.resume), ([], [blue[2]]))

    def test_when_the_owner_leaves_everything_goes_on(self):
        world = engine(red=1, blue=1)
        red = world.enqueue("red", 6)
        world.decide()
        (blue,) = world.enqueue("blue")
        world.decide()
        world.finish(blue)
        self.assertEqual(world.decide().resume, red[3:])
        self.assertEqual(len(world.running("red")), 4)

    def test_what_one_cannot_use_the_others_get(self):
        world = engine(slots=8, red=1, blue=1, green=2)
        world.enqueue("red", 9)
        world.decide()
        world.enqueue("blue", 9)
        world.enqueue("green", 1)
        self.assertEqual(world.decide().slots, {"red": 4, "blue": 3, "green": 1})

    def test_nothing_is_paused_while_there_is_room(self):
        world = engine(red=1, blue=3)
        world.enqueue("red", 3)
        world.enqueue("blue", 1)
        self.assertFalse(world.decide())

    def test_fewer_slots_than_the_engine_has_bind_a_tenant_alone_too(self):
        world = engine(slots=2, bounded=True, red=1)
        red = world.enqueue("red", 5)
        self.assertCountEqual(world.decide().pause, red[2:])


class SharesTest(unittest.TestCase):

    def test_entitlements_follow_weights_and_demand(self):
        self.assertEqual(entitlements({"a": 9, "b": 9}, {"a": 3, "b": 1}, 4), {"a": 3, "b": 1})
        self.assertEqual(entitlements({"a": 1, "b": 9}, {"a": 3, "b": 1}, 4), {"a": 1, "b": 3})
        self.assertEqual(entitlements({"a": 1, "b": 1}, {"a": 3, "b": 1}, 4), {"a": 1, "b": 1})
        self.assertEqual(entitlements({}, {}, 4), {})

    def test_a_tenant_that_was_not_named_has_weight_one(self):
        world = engine(slots=3, red=2)
        world.enqueue("red", 5)
        world.enqueue("stranger", 5)
        self.assertEqual(world.decide().slots, {"red": 2, "stranger": 1})

    def test_an_odd_slot_stays_until_a_generation_ends_and_then_goes_to_who_was_charged_least(self):
        world = engine(slots=3, red=1, blue=1)
        red = world.enqueue("red", 5)
        world.decide()
        world.enqueue("blue", 5)
        self.assertEqual(world.decide().slots, {"red": 2, "blue": 1})
        for _ in range(50):
            world.step()
            self.assertFalse(world.decide(), "no ping-pong, whatever is charged")
        world.finish(red[0])
        self.assertEqual(world.decide().slots, {"red": 1, "blue": 2})

    def test_more_tenants_than_slots_take_turns(self):
        world = engine(slots=2, a=1, b=1, c=1)
        for tenant in "abc":
            world.enqueue(tenant, 30)
        for _ in range(60):
            world.decide()
            world.step(10)
            for live in list(world.world.live.values()):
                if live.output_tokens == 30:
                    world.finish(live.generation_id)
        charged = world.world.charged
        self.assertLessEqual(max(charged.values()) - min(charged.values()), 100, charged)

    def test_rest_cannot_be_saved_up(self):
        world = engine(slots=1, red=1, blue=1)
        world.enqueue("red", 40)
        for _ in range(30):
            world.decide()
            world.step(10)
            world.finish(world.running("red")[0])
        world.enqueue("blue", 40)
        turns = []
        for _ in range(10):
            world.decide()
            turns.append("red" if world.running("red") else "blue")
            world.step(10)
            world.finish((world.running("red") + world.running("blue"))[0])
        self.assertLessEqual(abs(turns.count("red") - turns.count("blue")), 2, turns)


class OthersTest(unittest.TestCase):

    def test_pauses_of_others_are_no_demand_and_are_never_continued(self):
        world = engine(red=1, blue=1)
        red = world.enqueue("red", 6)
        world.decide()
        blue = world.enqueue("blue")
        world.world.revision += 1
        world.world.move(world.world.revision, blue[0], "blue", State.PAUSED)
        self.assertFalse(world.decide())
        self.assertEqual(len(world.running("red")), 4)
        self.assertEqual(len(red), 6)

    def test_what_was_refused_is_left_alone_until_it_changes(self):
        world = engine(red=1, blue=1)
        world.enqueue("red", 4)
        world.decide()
        world.enqueue("blue", 1)
        decision = world.policy.decide(world.world)
        world.world.refuse(decision.pause[0])
        self.assertFalse(world.policy.decide(world.world))

    def test_after_a_restart_the_snapshot_leads_to_the_same_world(self):
        world = engine(red=1, blue=1)
        world.enqueue("red", 6)
        world.decide()
        world.enqueue("blue", 4)
        world.decide()
        world.decide()
        again = World()
        again.replace(world.world.revision, [Live(**vars(live)) for live in world.world.live.values()])
        self.assertFalse(FairShare({"red": 1, "blue": 1}, 4).decide(again))

    def test_results_and_watch_agree_whoever_is_first(self):
        world = World()
        world.move(1, "a", "red", State.QUEUED)
        world.settle("a", 5, State.PAUSED, mine=True)
        world.move(3, "a", "red", State.RUNNING)  # older news
        world.move(5, "a", "red", State.PAUSED)  # the same news
        self.assertEqual((world.live["a"].state, world.live["a"].mine), (State.PAUSED, True))
        world.move(7, "a", "red", State.PREEMPTED)
        world.settle("a", 5, State.PAUSED, mine=True)  # older
        self.assertEqual(world.live["a"].state, State.PREEMPTED)

    def test_a_second_snapshot_charges_only_what_is_new(self):
        world = World()
        world.replace(1, [Live("a", "red", State.RUNNING, 1, prefilled_tokens=8, output_tokens=10)])
        world.progress("a", "red", 0, 5)
        world.replace(9, [Live("a", "red", State.RUNNING, 1, prefilled_tokens=8, output_tokens=18)])
        self.assertEqual(world.charged["red"], 8 * 0.25 + 18)


class StormTest(unittest.TestCase):

    def test_work_is_conserved_and_decisions_settle_at_once(self):
        for seed in range(200):
            dice = random.Random(seed)
            world = engine(slots=dice.randint(1, 6), a=1, b=dice.choice(["0.5", 1, 3]), c=2)
            for _ in range(40):
                tenant = dice.choice("abcd")
                if dice.random() < 0.6:
                    world.enqueue(tenant, dice.randint(1, 4))
                elif alive := list(world.world.live):
                    world.finish(dice.choice(alive))
                world.decide()
                self.assertFalse(world.decide(), f"seed {seed}: one decision is enough")
                world.step()
                running = sum(len(world.running(name)) for name in "abcd")
                self.assertEqual(running, min(world.slots, len(world.world.live)), f"seed {seed}")


if __name__ == "__main__":
    main()
