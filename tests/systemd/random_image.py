#!/usr/bin/env python3
"""An OCI archive of an image of random bytes, which nothing compresses: random_image.py ARCHIVE NAME MEBIBYTES"""

import hashlib
import io
import json
import os
import sys
import tarfile

archive, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3]) << 20
blobs = {}


def blob(kind, content):
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(content)}


def file_of(tar, path, content):
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


layers = []
for number in range(2):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        file_of(tar, f"random-{number}", os.urandom(size // 2))
    layers.append(blob("application/vnd.oci.image.layer.v1.tar", packed.getvalue()))
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
config = blob("application/vnd.oci.image.config.v1+json", json.dumps(config).encode())
manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
manifest = blob(manifest["mediaType"], json.dumps(manifest).encode())
index = {"schemaVersion": 2, "manifests": [manifest | {"annotations": {"io.containerd.image.name": name}}]}
with tarfile.open(archive, "w") as tar:
    file_of(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    file_of(tar, "index.json", json.dumps(index).encode())
    for digest, content in blobs.items():
        file_of(tar, "blobs/sha256/" + digest, content)
