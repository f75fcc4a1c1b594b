"""The ratchet: old offenders that may stay as long as they do not get worse. It only ever gets shorter.

Keys are (rule, path); the value says how much is allowed, in lines mostly. An entry that is not needed any more fails
the test.
"""

ALLOWED = {}
