"""Programs that try to leave a sandbox, and what each would leave behind if it did.

A source may name SECRET_FILE, VICTIM_FILE, CREATED_FILE, FOLDER, PORT, VICTIM_PROCESS and MARKER; the test fills them in.
Every source does its damage under a bare interpreter (unless ``control`` is False) within a second, or is still at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Canary = Literal[
    "secret",  # the content of a file, an environment variable or the parent's standard input is in the output
    "created",  # a file exists
    "deleted",  # a file does not
    "connected",  # somebody connected to a listening loopback socket
    "killed",  # another process of the user is dead
    "left",  # a process with MARKER in its command line outlives the run
    "time",  # it runs beyond its time
    "memory",  # more than 200 MiB, or a MemoryError on the way there
    "output",  # more than 1 MiB of output
    "crash",  # the process that runs it, or the one that asked, dies of a signal
]


@dataclass(frozen=True)
class Attack:
    name: str
    canary: Canary
    source: str
    control: bool = True  # False: a bare interpreter survives it too, and the test is only that ours does


ATTACKS = [
    # Time.
    Attack("endless loop", "time", "while True: pass"),
    Attack(
        "loop that swallows",
        "time",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ),
    Attack("loop in finally", "time", "try:\n    1 / 0\nfinally:\n    while True: pass"),
    Attack("sum of a huge range", "time", "sum(range(10**12))"),
    Attack("max of a huge range", "time", "max(range(10**13))"),
    Attack("membership", "time", "import itertools\n-1 in itertools.count()"),
    Attack("huge power", "time", "a = 7 ** (3 * 10**7)\nb = a * a\nc = b // 7"),
    Attack("tower of powers", "time", "10**10**10"),
    Attack("power with a modulus", "time", "a = (1 << 10**7) + 1\nprint(pow(3, a, a))"),
    Attack("lcm in one call", "time", "import math\nprint(math.lcm(*range(1, 200000)))"),
    Attack("factorial", "time", "import math\nmath.factorial(10**7)"),
    Attack("regex bomb", "time", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')"),
    Attack("quadratic regex", "time", "import re\nre.sub('(?=(a+))', 'b', 'a' * 100000)"),
    Attack("sleep", "time", "import time\ntime.sleep(1000)"),
    Attack("many sleeps", "time", "import time\nwhile True: time.sleep(0.01)"),
    Attack("asyncio sleep", "time", "import asyncio\nasyncio.run(asyncio.sleep(1000))"),
    Attack("exec of a loop", "time", "exec('while True: pass')"),
    Attack("loop in a hook", "time", "class A:\n    def __repr__(self):\n        while True: pass\nprint(A())"),
    Attack("closed outputs", "time", "import os\nos.close(1)\nos.close(2)\nwhile True: pass"),
    Attack("ignored signals", "time", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"),
    Attack(
        "endless thread",
        "time",
        "import threading\ndef f():\n    while True: pass\nfor _ in range(20): threading.Thread(target=f).start()",
    ),
    Attack("loop at exit", "time", "import atexit\ndef f():\n    while True: pass\natexit.register(f)"),
    # Memory.
    Attack("memory growth", "memory", "a = []\nwhile True: a.append('x' * 100000)"),
    Attack("doubling", "memory", "a = [0]\nwhile True: a = a + a"),
    Attack("one shot", "memory", "a = 'x' * 10**10"),
    Attack("one shot, bytes", "memory", "a = bytearray(10**10)"),
    Attack("shift", "memory", "1 << 10**11"),
    Attack("format width", "memory", "'%0999999999d' % 1"),
    Attack("f-string width", "memory", "f'{1:0999999999d}'"),
    Attack("sorted range", "memory", "sorted(range(10**9))"),
    Attack("set of a range", "memory", "set(range(10**9))"),
    Attack("itertools", "memory", "import itertools\nlist(itertools.repeat(0))"),
    Attack("replace", "memory", "a = 'a' * 10**5\na.replace('a', a)"),
    Attack("join", "memory", "a = 'x' * 10**6\na.join([a] * 10**5)"),
    Attack("nested lists", "memory", "a = []\nwhile True: a = [a, [0] * 10000]"),
    Attack(
        "cycles",
        "memory",
        "while True:\n    a = ['x' * 10**7]\n    a.append(a)\n    a[0] += 'y' * 10**8\n    b = [a, b] if 'b' in dir() else [a]",
    ),
    Attack("recursion without a limit", "memory", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()"),
    Attack("parser", "memory", "eval('not ' * 30000 + '1')"),
    Attack("random bits", "memory", "import random\nrandom.getrandbits(2 * 10**9)"),
    Attack(
        "decimal precision", "memory", "import decimal\ndecimal.getcontext().prec = 10**9\ndecimal.Decimal(2).sqrt()"
    ),
    # Output.
    Attack("100 MB print", "output", "print('x' * 100_000_000)"),
    Attack("300 MB print", "memory", "print('x' * 300_000_000)"),
    Attack("endless print", "output", "while True: print('x' * 1000)"),
    Attack("endless short print", "output", "while True: print('x')"),
    Attack("print on stderr", "output", "import sys\nwhile True: print('x' * 1000, file=sys.stderr)"),
    # Files.
    Attack("open", "secret", "print(open('SECRET_FILE').read())"),
    Attack("open, full width", "secret", "print(ｏｐｅｎ('SECRET_FILE').read())"),
    Attack("pathlib", "secret", "import pathlib\nprint(pathlib.Path('SECRET_FILE').read_text())"),
    Attack("os.open", "secret", "import os\nprint(os.read(os.open('SECRET_FILE', os.O_RDONLY), 1000))"),
    Attack("io", "secret", "import io\nprint(io.FileIO('SECRET_FILE').readall())"),
    Attack("mmap", "secret", "import mmap, os\nprint(mmap.mmap(os.open('SECRET_FILE', 0), 0, prot=1)[:])"),
    Attack("dots", "secret", "print(open('/usr/lib/../..SECRET_FILE').read())"),
    Attack("proc root", "secret", "print(open('/proc/self/rootSECRET_FILE').read())"),
    Attack("parent's root", "secret", "import os\nprint(open(f'/proc/{os.getppid()}/rootSECRET_FILE').read())"),
    Attack(
        "symbolic link",
        "secret",
        "import os\nos.symlink('SECRET_FILE', 'FOLDER/link')\nprint(open('FOLDER/link').read())",
    ),
    Attack(
        "hard link", "secret", "import os\nos.link('SECRET_FILE', 'FOLDER/hard')\nprint(open('FOLDER/hard').read())"
    ),
    Attack("listing", "secret", "import os\nprint(os.listdir('FOLDER'), list(os.scandir('FOLDER')))"),
    Attack("glob", "secret", "import glob\nprint(glob.glob('FOLDER/*'))"),
    Attack("linecache", "secret", "import linecache\nprint(linecache.getlines('SECRET_FILE'))"),
    Attack("fileinput", "secret", "import fileinput\nprint(list(fileinput.input('SECRET_FILE')))"),
    Attack(
        "import from a folder", "secret", "import sys\nsys.path.insert(0, 'FOLDER')\nimport canary\nprint(canary.VALUE)"
    ),
    Attack("write", "created", "open('CREATED_FILE', 'w').write('x')"),
    Attack("write, pathlib", "created", "import pathlib\npathlib.Path('CREATED_FILE').touch()"),
    Attack("make a folder", "created", "import os\nos.makedirs('CREATED_FILE')"),
    Attack(
        "database",
        "created",
        "import sqlite3\nc = sqlite3.connect('CREATED_FILE')\nc.execute('create table a (b)')\nc.commit()",
    ),
    Attack("shared memory", "created", "open('/dev/shm/MARKER', 'w').write('x')\nopen('CREATED_FILE', 'w')"),
    Attack("temporary file", "created", "import tempfile, os\nos.rename(tempfile.mkstemp()[1], 'CREATED_FILE')"),
    Attack("at exit", "created", "import atexit\natexit.register(lambda: open('CREATED_FILE', 'w'))"),
    Attack("delete", "deleted", "import os\nos.remove('VICTIM_FILE')"),
    Attack("delete the folder", "deleted", "import shutil\nshutil.rmtree('FOLDER')"),
    Attack("truncate and rename", "deleted", "import os\nos.rename('VICTIM_FILE', 'VICTIM_FILE.moved')"),
    # Network.
    Attack("socket", "connected", "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)"),
    Attack("low socket", "connected", "import _socket\ns = _socket.socket(2, 1)\ns.connect(('127.0.0.1', PORT))"),
    Attack(
        "urllib", "connected", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/', timeout=0.3)"
    ),
    Attack(
        "asyncio connection", "connected", "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', PORT))"
    ),
    Attack("mapped address", "connected", "import socket\nsocket.create_connection(('0.0.0.0', PORT), 1)"),
    # Processes.
    Attack("os.system", "created", "import os\nos.system('touch CREATED_FILE')"),
    Attack("subprocess", "created", "import subprocess\nsubprocess.run(['touch', 'CREATED_FILE'])"),
    Attack(
        "posix_spawn",
        "created",
        "import os\nos.waitpid(os.posix_spawn('/bin/touch', ['touch', 'CREATED_FILE'], {}), 0)",
    ),
    Attack("exec", "created", "import os\nos.execv('/bin/touch', ['touch', 'CREATED_FILE'])"),
    Attack(
        "fork bomb",
        "left",
        "import os, time\nfor _ in range(4):\n    os.fork()\nx = 'MARKER'\ntime.sleep(20)",
    ),
    Attack(
        "grandchild",
        "left",
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)', 'MARKER'],"
        " start_new_session=True)",
    ),
    Attack(
        "daemon", "left", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    x = 'MARKER'\n    time.sleep(20)"
    ),
    Attack("kill", "killed", "import os\nos.kill(VICTIM_PROCESS, 9)"),
    Attack("kill by ctypes", "killed", "import ctypes\nctypes.CDLL(None).kill(VICTIM_PROCESS, 9)"),
    Attack("kill the parent", "killed", "import os\nfor p in (VICTIM_PROCESS, os.getppid()): os.kill(p, 15)"),
    # Secrets of the parent.
    Attack("environment", "secret", "import os\nprint(os.environ)"),
    Attack("getenv", "secret", "import os\nprint(os.getenv('CANARY'))"),
    Attack("environment, posix", "secret", "import posix\nprint(posix.environ)"),
    Attack("environment, proc", "secret", "print(open('/proc/self/environ').read())"),
    Attack("parent's environment", "secret", "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())"),
    Attack("input", "secret", "print(input())"),
    Attack("standard input", "secret", "import sys\nprint(sys.stdin.read())"),
    Attack("descriptor 0", "secret", "import os\nprint(os.read(0, 1000))"),
    Attack(
        "other descriptors",
        "secret",
        "import os\nfor n in range(3, 64):\n    try: print(os.pread(n, 1000, 0))\n    except Exception: pass\nprint(open(0).read())",  # noqa: E501
    ),
    # Ways around a missing name.
    Attack(
        "subclasses",
        "secret",
        "for c in ().__class__.__base__.__subclasses__():\n    if c.__name__ == '_wrap_close':\n"
        "        print(c.__init__.__globals__['open']('SECRET_FILE', 0) if 0 else c.__init__.__globals__['environ'])",
    ),
    Attack("format walk", "secret", "import os\nprint('{0.environ}'.format(os))"),
    Attack("f-string walk", "secret", "print(f\"{__import__('os').environ}\")"),
    Attack("__import__", "secret", "print(__import__('o' + 's').environ)"),
    Attack("importlib", "secret", "import importlib\nprint(importlib.reload(importlib.import_module('os')).environ)"),
    Attack("builtins", "secret", "print(__builtins__.__dict__['op' + 'en']('SECRET_FILE').read())"),
    Attack("eval", "secret", "print(eval(\"open('SECRET_FILE').read()\"))"),
    Attack("compile", "secret", "exec(compile(\"print(open('SECRET_FILE').read())\", 'a', 'exec'))"),
    Attack(
        "globals of a function",
        "secret",
        "import json\nprint(json.load.__globals__['__builtins__']['open']('SECRET_FILE').read())",
    ),
    Attack("gc", "secret", "import gc, os\nprint([o for o in gc.get_objects() if type(o).__name__ == '_Environ'])"),
    Attack("sys.modules", "secret", "import sys\nprint(sys.modules['os'].environ)"),
    Attack("frames", "secret", "import sys\nprint(sys._getframe().f_builtins['open']('SECRET_FILE').read())"),
    Attack(
        "traceback",
        "secret",
        "try: 1 / 0\nexcept Exception as e: print(e.__traceback__.tb_frame.f_builtins['open']('SECRET_FILE').read())",
    ),
    Attack("loader", "secret", "print(__loader__.load_module('posix').environ)"),
    Attack("decorator", "secret", "@print\n@open\ndef f(): pass\n", control=False),
    Attack(
        "pickle",
        "created",
        "import pickle\nclass A:\n    def __reduce__(self): return open, ('CREATED_FILE', 'w')\npickle.loads(pickle.dumps(A()))",  # noqa: E501
    ),
    Attack(
        "code object",
        "secret",
        "f = lambda: 0\nf.__code__ = compile('print(open(\"SECRET_FILE\").read())', 'a', 'exec')\nf()",
    ),
    Attack("breakpoint", "secret", "breakpoint()"),
    Attack("help", "created", "import webbrowser, os\nos.environ['BROWSER'] = 'x'\nopen('CREATED_FILE', 'w')"),
    Attack("installed package", "secret", "import sys\nsys.path.append('FOLDER')\nprint(__import__('canary').VALUE)"),
    # Crashes.
    Attack("null read", "crash", "import ctypes\nctypes.string_at(0)"),
    Attack("abort", "crash", "import os\nos.abort()"),
    Attack("kill itself", "crash", "import os\nos.kill(os.getpid(), 9)"),
    Attack("bad bytecode", "crash", "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'd\\xff' * 8)\nf()"),
    Attack(
        "deep repr",
        "crash",
        "import sys\nsys.setrecursionlimit(10**9)\na = []\nfor _ in range(10**5): a = [a]\nrepr(a)",
        control=False,
    ),
    Attack("deep json", "crash", "import json, sys\nsys.setrecursionlimit(10**9)\njson.loads('[' * 10**6)"),
    Attack(
        "deep equality",
        "crash",
        "import sys\nsys.setrecursionlimit(10**9)\na, b = [], []\nfor _ in range(2 * 10**5): a, b = [a], [b]\na == b",
    ),
    Attack("exit", "crash", "import sys\nsys.exit(1)", control=False),
    Attack("_exit", "crash", "import os\nos._exit(1)", control=False),
    Attack("5000 parentheses", "crash", "(" * 5000 + "1" + ")" * 5000, control=False),
    Attack("5000 brackets", "crash", "[" * 5000, control=False),
    Attack("long sum", "crash", "+".join(["1"] * 20000), control=False),
    Attack("long attribute", "crash", "x" + ".a" * 20000, control=False),
    Attack("recursion", "crash", "def f(n): return f(n + 1)\nf(0)", control=False),
    Attack("deep hash", "crash", "a = ()\nfor _ in range(10**6): a = (a,)\nhash(a)"),
    Attack("null byte", "crash", "print(1)\0", control=False),
    Attack("lone surrogate", "crash", "print('\ud800')", control=False),
    Attack("long source", "crash", "#" * 70000, control=False),
    Attack("long message", "crash", "raise ValueError('x' * 10**7)", control=False),
    Attack(
        "odd exception", "crash", "class A(Exception):\n    def __str__(self): return 1 / 0\nraise A", control=False
    ),
]
