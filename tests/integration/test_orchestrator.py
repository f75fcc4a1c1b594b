"""The fair-share orchestrator on the real server: shares taken back, and its death, for a while and for good."""

import signal
import subprocess
import time
import unittest

from harness import PATIENCE_S, ROOT, Server, Stream, spec

QUEUED, RUNNING, PREEMPTED, PAUSED = 1, 2, 3, 4
STORY = 'Once upon a time, in a small village by the sea,'
TOKENS = 7500


class Orchestrator:
    """tools/orchestrator/run as a child process; its log is read as it comes."""

    def __init__(self, server, *flags, shares=('red=1', 'blue=1')):
        self.process = subprocess.Popen(
            [ROOT / 'tools/orchestrator/run', f'--control_address={server.control_address}',
             *(f'--share={share}' for share in shares), *flags],
            stderr=subprocess.PIPE, text=True)
        self.log = []
        self.await_log('session=')

    def await_log(self, part):
        while True:
            line = self.process.stderr.readline()
            if not line:
                raise AssertionError(f'the log ended without {part!r}: {self.log}')
            self.log.append(line)
            if part in line:
                return line

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.end()

    def end(self):
        status = self.process.wait(PATIENCE_S)
        self.process.stderr.close()
        return status


class OrchestratorTest(unittest.TestCase):
    def setUp(self):
        # Room for what is paused besides what runs; and for generations that a GPU does not end before a test does.
        self.server = Server('--max_running=4', '--context_tokens=8192', '--kv_bytes=1000000000')
        self.orchestrators = []

    def tearDown(self):
        for orchestrator in self.orchestrators:
            if orchestrator.process.poll() is None:
                orchestrator.kill()
        self.server.__exit__()

    def start(self, *flags, **more):
        self.orchestrators.append(Orchestrator(self.server, *flags, **more))
        return self.orchestrators[-1]

    def enqueue(self, tenant, count):
        """All of them at one boundary."""
        operations = [dict(enqueue=dict(generation_id=f'{tenant}{i}', spec=spec(STORY, TOKENS, tenant=tenant)))
                      for i in range(count)]
        self.server.control.control('Apply', operations=operations)

    def in_state(self, *states):
        """Ids of live generations in these states, oldest first."""
        listed = self.server.control.control('ListGenerations', states=states).generations
        return [generation.generation_id for generation in listed]

    def await_running(self, *ids):
        deadline = time.monotonic() + 10
        while self.in_state(RUNNING) != list(ids):
            self.assertLess(time.monotonic(), deadline, f'running: {self.in_state(RUNNING)}')
            time.sleep(0.02)

    def shared(self):
        """Two tenants that both want everything, and share it."""
        self.enqueue('red', 6)
        self.await_running('red0', 'red1', 'red2', 'red3')
        self.enqueue('blue', 4)
        self.await_running('red0', 'red1', 'blue0', 'blue1')

    def test_an_owner_takes_its_share_back_in_one_apply(self):
        orchestrator = self.start()
        held = self.server.control.control('Enqueue', generation_id='operator', hold=True,
                                           spec=spec(STORY, TOKENS, tenant='blue'))
        self.enqueue('red', 6)
        self.await_running('red0', 'red1', 'red2', 'red3')
        self.assertEqual(self.in_state(PAUSED), ['operator'], 'one that is alone is left to the engine')
        watch = Stream(self.server.control.control('Watch'))
        self.enqueue('blue', 4)
        self.await_running('red0', 'red1', 'blue0', 'blue1')
        watch.call.cancel()
        pauses = [(message.batch.revision, event.generation_id) for message in list(watch.messages)
                  for event in message.batch.events if event.state_change.to == PAUSED]
        self.assertEqual(len({revision for revision, _ in pauses}), 1, pauses)
        self.assertCountEqual([name for _, name in pauses], ['red2', 'red3', 'red4', 'red5', 'blue2', 'blue3'])
        self.assertIn('slots=blue:2,red:2', orchestrator.await_log('decision'))
        for i in range(4):
            self.server.verb('Abort', f'blue{i}')
        self.await_running('red0', 'red1', 'red2', 'red3')
        self.assertEqual(self.in_state(PAUSED), ['operator'], 'what others hold is never continued')
        self.assertEqual(self.server.get('operator').revision, held.revision)

    def test_killed_and_started_again_it_neither_loses_nor_leaks_a_pause(self):
        first = self.start('--ttl=3')
        self.shared()
        paused = self.in_state(PAUSED)
        self.assertEqual(paused, ['red2', 'red3', 'red4', 'red5', 'blue2', 'blue3'])
        self.assertEqual(first.kill(), -signal.SIGKILL)
        self.server.verb('Abort', 'blue0')  # while no one looks
        self.start('--ttl=3')
        self.await_running('red0', 'red1', 'blue1', 'blue2')
        time.sleep(4)  # longer than the ttl: the session lives on with its new owner
        self.assertEqual(self.in_state(PAUSED), ['red2', 'red3', 'red4', 'red5', 'blue3'])
        self.assertEqual(self.server.get('red5').pause.session_id, 'fair-share')
        for i in range(1, 4):
            self.server.verb('Abort', f'blue{i}')
        self.await_running('red0', 'red1', 'red2', 'red3')
        self.assertEqual(self.in_state(PAUSED), [])
        self.assertEqual(self.server.get('red5').usage.pause_count, 1)

    def test_other_shares_after_a_restart_are_one_apply_of_pauses_and_continuations(self):
        self.start(shares=('red=3', 'blue=1'))
        self.enqueue('red', 6)
        self.await_running('red0', 'red1', 'red2', 'red3')
        self.enqueue('blue', 4)
        self.await_running('red0', 'red1', 'red2', 'blue0')
        self.assertEqual(self.orchestrators[0].kill(signal.SIGTERM), 0)
        second = self.start(shares=('red=1', 'blue=3'))
        self.await_running('red0', 'blue0', 'blue1', 'blue2')
        self.assertIn('pause=red1,red2 continue=blue1,blue2', second.await_log('decision'))

    def test_killed_for_good_everything_goes_on_after_the_ttl(self):
        orchestrator = self.start('--ttl=1')
        self.shared()
        orchestrator.kill()
        deadline = time.monotonic() + 5
        while self.in_state(PAUSED):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        self.assertEqual(len(self.in_state(QUEUED, RUNNING, PREEMPTED)), 10)

    def test_one_that_was_superseded_stands_back(self):
        first = self.start('--ttl=1')
        self.shared()
        self.start('--ttl=1', shares=('red=1', 'blue=1'))
        self.assertIn('taken over', first.await_log('taken over'))
        self.assertEqual(first.end(), 3)
        self.await_running('red0', 'red1', 'blue0', 'blue1')

    def test_one_that_slept_past_its_ttl_opens_its_session_again(self):
        orchestrator = self.start('--ttl=1')
        self.shared()
        orchestrator.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_S
        while self.in_state(PAUSED):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        orchestrator.process.send_signal(signal.SIGCONT)
        orchestrator.await_log('open again')
        self.await_running('red0', 'red1', 'blue0', 'blue1')

    def test_at_its_end_it_may_release_all(self):
        orchestrator = self.start('--release')
        self.shared()
        self.assertEqual(orchestrator.kill(signal.SIGTERM), 0)
        self.assertEqual(self.in_state(PAUSED), [])


if __name__ == '__main__':
    unittest.main()
