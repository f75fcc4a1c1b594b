"""The command-line client for programs: JSON objects, one a line, and exit codes."""

import json
import os
import signal
import subprocess
import tempfile
import time
import unittest

from harness import FERMATACTL, Server, run


def text(messages):
    """The text of a stream."""
    return ''.join(message['chunk']['text'] for message in messages if 'chunk' in message)


class FermatactlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--context_tokens=2048')
        cls.environment = dict(os.environ, FERMATA_DATA_ADDRESS=cls.server.data_address,
                               FERMATA_CONTROL_ADDRESS=cls.server.control_address)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def lines(self, *arguments):
        """The JSON objects that a command prints; the addresses come from the environment."""
        result = run(FERMATACTL, *arguments, '--json', env=self.environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, '')
        return [json.loads(line) for line in result.stdout.splitlines()]

    def verb(self, *arguments):
        """Does a verb with one id, which must succeed, and returns the generation."""
        result, = self.lines(*arguments)
        self.assertEqual(result['code'], 0, result)
        return result['generation']

    def test_a_generation_is_streamed_held_and_continued(self):
        command = [FERMATACTL, 'generate', '--json', '--id=story', '--temperature=0', '--ignore_eos',
                   '--max_tokens=150', 'The sea was']
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment) as reader:
            self.addCleanup(reader.kill)
            messages = [json.loads(reader.stdout.readline()) for _ in range(5)]
            held = self.verb('pause', 'story', '--reason=dinner')
            self.assertEqual(held['state'], 'PAUSED')
            self.assertEqual(held['pause']['reason'], 'dinner')
            self.assertEqual([g['generation_id'] for g in self.lines('list', '--state=PAUSED')], ['story'])
            self.verb('priority', '-3', 'story')
            continued = self.verb('continue', 'story')
            self.assertEqual(continued['priority'], -3)
            messages += [json.loads(line) for line in reader.stdout]
            self.assertEqual(reader.wait(), 0)
        self.assertEqual(messages[0]['accepted']['generation_id'], 'story')
        self.assertEqual(messages[-1]['finish']['finish_reason'], 'LENGTH')
        self.assertIn('PAUSED', [m['notice']['state'] for m in messages if 'notice' in m])

        again = self.lines('attach', 'story')
        self.assertEqual(again[-1], messages[-1])
        self.assertEqual(text(again), text(messages))
        usage = self.lines('get', 'story')[0]['usage']
        self.assertEqual(usage['prefilled_token_count'], usage['prompt_token_count'])

    def test_a_generation_is_enqueued_and_aborted(self):
        made, = self.lines('enqueue', '--hold', '--id=later', '--label=team=red', 'The sea was')
        self.assertEqual((made['state'], made['labels']), ('PAUSED', {'team': 'red'}))
        ended = self.verb('abort', 'later')
        self.assertEqual((ended['state'], ended['finish_reason']), ('FINISHED', 'ABORTED'))

    def test_a_session_holds_by_a_selector_and_its_end_lets_go(self):
        session, = self.lines('session', 'open', 'fair', '--ttl=60s')
        acting = ['--session=fair', f'--epoch={session["epoch"]}']
        self.lines('enqueue', '--id=long', '--tenant=red', '--ignore_eos', '--max_tokens=1500', 'The sea was')
        held = self.verb('pause', '--tenant=red', '--state=queued', '--state=running', *acting)
        self.assertEqual((held['generation_id'], held['pause']['session_id']), ('long', 'fair'))
        self.lines('session', 'close', 'fair', f'--epoch={session["epoch"]}')
        self.assertNotEqual(self.lines('get', 'long')[0]['state'], 'PAUSED')
        self.verb('pause', 'long', '--lease=50ms', '--on_lease_expiry=abort')
        self.server.await_state('long', 'FINISHED')

    def test_apply_does_all_or_none_and_says_so(self):
        self.lines('enqueue', '--hold', '--id=swap', 'The sea was')
        with tempfile.NamedTemporaryFile('w', suffix='.txt') as file:
            file.write('# one that is there, one that is not\ncontinue swap\nabort nobody\n')
            file.flush()
            result = run(FERMATACTL, 'apply', file.name, '--atomic', '--json', env=self.environment)
        self.assertEqual(result.returncode, 1)
        self.assertEqual([json.loads(line)['code'] for line in result.stdout.splitlines()], [10, 5])
        self.assertEqual(self.lines('get', 'swap')[0]['state'], 'PAUSED')
        self.verb('abort', 'swap')

    def test_watch_tells_everything_and_top_draws_it(self):
        with subprocess.Popen([FERMATACTL, 'watch', '--json'], stdout=subprocess.PIPE, text=True,
                              env=self.environment) as watcher:
            self.addCleanup(watcher.kill)
            self.assertIn('snapshot', json.loads(watcher.stdout.readline()))
            self.lines('enqueue', '--id=seen', '--tenant=blue', '--ignore_eos', '--max_tokens=1900', 'The sea was')
            tokens = 0
            while tokens < 5:
                for event in json.loads(watcher.stdout.readline()).get('batch', {}).get('events', []):
                    tokens += int(event.get('progress', {}).get('output_token_count', 0))
            screen = run(FERMATACTL, 'top', '--once', env=self.environment)
            self.assertEqual(screen.returncode, 0, screen.stderr)
            self.assertRegex(screen.stdout, r'seen +RUNNING +blue')
            watcher.kill()
        self.verb('abort', 'seen')

    def test_ctrl_c_is_an_ordinary_end(self):
        for command in (('watch', '--json'), ('session', 'keep', 'kept', '--json')):
            with subprocess.Popen([FERMATACTL, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  env=self.environment) as process:
                self.addCleanup(process.kill)
                process.stdout.readline()
                time.sleep(0.2)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(10), 0, command)
                self.assertEqual(process.stderr.read(), '')

    def test_a_revision_that_is_gone_says_what_to_do(self):
        result = run(FERMATACTL, 'watch', '--progress_interval=2m', env=self.environment)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn('progress_interval is 2m', result.stderr)
        result = run(FERMATACTL, 'watch', f'--from={10 ** 12}', env=self.environment)
        self.assertEqual(result.returncode, 1)
        self.assertIn('OUT_OF_RANGE', result.stderr)
        self.assertIn('--from', result.stderr)

    def test_apply_keeps_the_session_of_its_json(self):
        self.lines('enqueue', '--hold', '--id=fenced', 'The sea was')
        with tempfile.NamedTemporaryFile('w', suffix='.json') as file:
            json.dump({'session_id': 'nobody', 'epoch': 1, 'operations': [{'abort': {'generation_ids': ['fenced']}}]},
                      file)
            file.flush()
            result = run(FERMATACTL, 'apply', file.name, '--json_input', '--json', env=self.environment)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertEqual(self.lines('get', 'fenced')[0]['state'], 'PAUSED')
        self.verb('abort', 'fenced')

    def test_a_refusal_is_one_line_and_exit_code_1(self):
        for command in (('get', 'nobody'), ('pause', 'nobody'), ('attach', 'nobody')):
            result = run(FERMATACTL, *command, env=self.environment)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn('nobody', result.stderr)

    def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(self):
        result = run(FERMATACTL, 'engine', '--control_address=127.0.0.1:1')
        self.assertEqual(result.returncode, 1)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn('127.0.0.1:1', result.stderr)


if __name__ == '__main__':
    unittest.main()
