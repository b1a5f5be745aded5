"""Calls one function of a test module in this process, and writes what it returned or raised.

The order comes pickled on standard input: user id, group ids, function, arguments. Everything is
imported as root, before the user is changed: the files of Python may lie where only root can read.
"""

import os
import pickle
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
reply = os.dup(1)
os.dup2(2, 1)  # What a function prints must not get into the reply.

import_module("tests.conftest")  # It makes an adapter: then all that is imported late is there.
user, groups, function, arguments = pickle.load(sys.stdin.buffer)
if user:
    os.setgroups(groups)
    os.setgid(user)
    os.setuid(user)

outcome: tuple[object, BaseException | None]
try:
    outcome = function(*arguments), None
except Exception as error:
    outcome = None, error
with open(reply, "wb") as output:
    pickle.dump(outcome, output)
