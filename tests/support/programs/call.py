"""A program that calls one function of a test module, and writes its result or exception.

Standard input has the pickled user id, group ids, function and arguments. All modules are imported as
root, before the user changes: only root may be able to read the files of Python.
"""

import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

import threepipe
from threepipe.platforms.linux.namespace import Namespace

sys.path.insert(0, str(Path(__file__).parents[3]))
reply = os.dup(1)
os.dup2(2, 1)  # Output of the function must not get into the reply.

namespace = Namespace.fresh()
with suppress(threepipe.ThreepipeError):  # Perhaps no adapter can be made here, which the function shows.
    threepipe.Adapter.create("probe", netns=namespace.path).close()  # This imports all late modules.
namespace.close()
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
