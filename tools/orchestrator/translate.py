"""From the API's messages to the World that policies see."""

from tools.orchestrator.world import Live, State


class Translator:
    """Folds WatchResponses and the results of verbs into a World."""

    def __init__(self, world, session_id):
        self._world, self._session_id = world, session_id
        self._snapshot = []

    def message(self, message):
        """Folds one message of Watch; returns whether the world is whole, that is, not within a snapshot."""
        if message.HasField("snapshot"):
            self._snapshot += [self._live(generation) for generation in message.snapshot.generations]
            if not message.snapshot.last:
                return False
            self._world.replace(message.snapshot.revision, self._snapshot)
            self._snapshot = []
        elif message.HasField("batch"):
            self._batch(message.batch)
        return True

    def results(self, results):
        """Folds what verbs came to; returns [(id, message)] of those refused."""
        refused = []
        for result in results.results:
            if result.code:
                self._world.refuse(result.generation_id)
                refused.append((result.generation_id, result.message))
            else:
                live = self._live(result.generation)
                self._world.settle(live.generation_id, live.revision, live.state, live.mine)
        return refused

    def _batch(self, batch):
        for event in batch.events:
            if event.HasField("state_change"):
                self._world.move(batch.revision, event.generation_id, event.tenant, event.state_change.to)
            elif event.HasField("progress"):
                self._world.progress(event.generation_id, event.tenant, event.progress.prefilled_token_count,
                                     event.progress.output_token_count)
        self._world.revision, self._world.step = batch.revision, batch.step

    def _live(self, generation):
        state = State(generation.state)
        return Live(generation.generation_id, generation.tenant, state, generation.revision,
                    mine=state == State.PAUSED and generation.pause.session_id == self._session_id,
                    resumed=state != State.PAUSED and generation.usage.pause_count > 0,
                    prefilled_tokens=generation.usage.prefilled_token_count,
                    output_tokens=generation.usage.output_token_count)
