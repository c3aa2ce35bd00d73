"""Writes an archive of the images that Kubernetes' own tests name: images.py BASE AGNHOST OUT.

BASE is a root file system (tar) with a shell, nginx, curl and DNS tools; AGNHOST the tests' program. Every image is both,
with an entry point of its own, under the names that the tests of v1.35 ask for.
"""

import hashlib
import io
import json
import sys
import tarfile

REGISTRY = "registry.k8s.io/e2e-test-images/"
NGINX = ["nginx", "-g", "daemon off;"]
# Name, entry point, command, user.
IMAGES = [
    ("agnhost:2.59", ["/agnhost"], ["pause"], ""),
    ("agnhost:2.55", ["/agnhost"], ["pause"], ""),
    ("busybox:1.37.0-1", None, ["sh"], ""),
    ("nginx:1.14-4", None, NGINX, ""),
    ("nginx:1.15-4", None, NGINX, ""),
    ("jessie-dnsutils:1.7", None, ["sleep", "infinity"], ""),
    ("nonroot:1.4", ["/agnhost"], ["pause"], "1234"),
    ("nautilus:1.7", None, NGINX, ""),
    ("kitten:1.7", None, NGINX, ""),
]


def digest(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def add(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def layer(files):
    """A layer of so many (name, content, mode); its digest and bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content, mode in files:
            add(archive, name, content, mode)
    content = out.getvalue()
    return hashlib.sha256(content).hexdigest(), content


def main(base, agnhost, out):
    with open(agnhost, "rb") as program:
        tools, content = layer([("agnhost", program.read(), 0o755)])
    first = digest(base)
    manifest = []
    with tarfile.open(out, "w") as archive:
        archive.add(base, f"{first}/layer.tar")
        add(archive, f"{tools}/layer.tar", content)
        for name, entrypoint, command, user in IMAGES:
            layers = [first, tools]
            picture = name.split(":")[0]
            if picture in ("nautilus", "kitten"):
                # What the update demo looks for.
                said = json.dumps({"image": f"{picture}.jpg"}).encode()
                own, content = layer([("var/www/html/data.json", said, 0o644)])
                add(archive, f"{own}/layer.tar", content)
                layers.append(own)
            config = {"Entrypoint": entrypoint, "Cmd": command, "User": user, "WorkingDir": "/", "Labels": {"name": name},
                      "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
            image = {"architecture": "amd64", "os": "linux", "config": config, "history": [],
                     "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in layers]}}
            text = json.dumps(image).encode()
            add(archive, f"{hashlib.sha256(text).hexdigest()}.json", text)
            manifest.append({"Config": f"{hashlib.sha256(text).hexdigest()}.json", "RepoTags": [REGISTRY + name],
                             "Layers": [f"{one}/layer.tar" for one in layers]})
        add(archive, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
