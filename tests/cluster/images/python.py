"""Puts a Python with the AWS SDK into a folder, for an image: python.py FOLDER SITE_PACKAGES

The interpreter is the one that runs this, with its standard library, every shared library that either is linked with, and
the packages of the tests' own environment.
"""

import compileall
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig

# Half of a standard library is its own tests and windows.
LEFT_OUT = ["test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*", "__pycache__", "site-packages", "*.a"]


def libraries(file):
    """What the loader would load for it; nothing for what is not linked."""
    listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+)", listed)


def main(folder, packages):
    folder = pathlib.Path(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = folder / "usr/local"
    standard = home / "lib" / version
    shutil.copytree(sysconfig.get_path("stdlib"), standard, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(packages, standard / "site-packages", ignore=shutil.ignore_patterns("pip", "setuptools", "__pycache__"))
    # Otherwise each new pod compiles the SDKs when it first uses them. Not by the times of files, which the archive sets.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(standard, quiet=2, stripdir=folder, invalidation_mode=unchecked, workers=0)
    interpreter = home / "bin/python3"
    interpreter.parent.mkdir(parents=True)
    # The real file: a virtual environment's is a link.
    shutil.copy2(pathlib.Path(sys.executable).resolve(), interpreter)

    # Where programs that are not written in Python look for authorities: the SDK for Rust does not start without any.
    authorities = folder / "etc/ssl/certs/ca-certificates.crt"
    authorities.parent.mkdir(parents=True)
    shutil.copy2(pathlib.Path(packages) / "botocore/cacert.pem", authorities)

    linked = {library for file in [interpreter, *standard.rglob("*.so")] for library in libraries(file)}
    # Programs in Rust are linked with it too: beside the C library.
    linked |= {str(pathlib.Path(library).with_name("libgcc_s.so.1")) for library in linked if "/libc.so." in library}
    for library in sorted(linked):
        target = folder / library.lstrip("/")
        # Those that came with the interpreter lie outside where a loader looks; all the others stay where they were.
        if not re.match(r"/(usr/)?lib", library):
            target = folder / "usr/lib" / pathlib.Path(library).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


main(*sys.argv[1:])
