"""Sends dry-run creates to two API servers and tells what they answer differently.

The objects are those of tests/validation/rows (upstream's own test tables), as they are and with leaves changed at random.
Ends with 0 where nothing differs but what tests/upstream/known names, 1 where something does, 3 where a server does not come up.
"""

import copy
import glob
import http.client
import json
import os
import random
import re
import ssl
import sys
import time
from collections import Counter, OrderedDict

# Values that a leaf is given in place of its own; mostly some of its own type.
ODD = ["", "UPPER_case!", "-x", "a" * 64, "a" * 254, "1", "*", "a/b/c", "..", "/x", "10.0.0.300", "::1", "1.2.3.4/33",
       "http://x", 0, -1, 1, 2147483648, 3.5, True, None, [], {}]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Each server's own, or random.
DROPPED = {"uid", "creationTimestamp", "resourceVersion", "managedFields"}
OURS_ALONE = "nothing in this cluster acts on them yet"


class Server:
    def __init__(self, port, headers, context):
        self.port, self.headers, self.context = port, headers, context
        self.connection = None

    def send(self, method, path, body=None):
        headers = dict(self.headers, Accept="application/json")
        if body is not None:
            headers["Content-Type"] = "application/json"
        for attempt in range(2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context)
                self.connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = self.connection.getresponse()
                text = answer.read().decode("utf-8", "replace")
                return answer.status, text, answer.headers.get_all("Warning") or []
            except (http.client.HTTPException, OSError):
                self.connection = None
                if attempt:
                    raise

    def get(self, path):
        return json.loads(self.send("GET", path)[1])

    def wait(self, seconds=120):
        for _ in range(seconds * 5):
            try:
                if self.send("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        print(f"error: the server at port {self.port} does not come up", file=sys.stderr)
        sys.exit(3)


def servers():
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    pki = os.environ["STATE"] + "/pki/"
    ours = ssl.create_default_context(cafile=pki + "ca.crt") if os.path.exists(pki + "ca.crt") else None
    for _ in range(300):
        if ours and os.path.exists(pki + "admin.key"):
            break
        time.sleep(0.2)
        ours = ssl.create_default_context(cafile=pki + "ca.crt") if os.path.exists(pki + "ca.crt") else None
    ours.check_hostname = False
    ours.load_cert_chain(pki + "admin.crt", pki + "admin.key")
    upstream = Server(16443, {"Authorization": "Bearer " + os.environ["TOKEN"], "User-Agent": "compare"}, anybody)
    mine = Server(6443, {"User-Agent": "compare"}, ours)
    upstream.wait()
    mine.wait()
    # Its controllers would make the account that pods are given.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    for _ in range(100):
        if upstream.send("POST", "/api/v1/namespaces/default/serviceaccounts", account)[0] in (201, 409):
            break
        time.sleep(0.2)
    return upstream, mine


def resources(server):
    found = {}
    groups = ["/api/v1"] + ["/apis/" + v["groupVersion"] for g in server.get("/apis")["groups"] for v in g["versions"]]
    for root in groups:
        listed = server.get(root)
        for one in listed["resources"]:
            if "/" not in one["name"] and "create" in one["verbs"]:
                found[listed["groupVersion"], one["kind"]] = (root, one["name"], one["namespaced"])
    return found


def changed(value, changes):
    """The object with what the JSON pointers name replaced; null removes."""
    value = copy.deepcopy(value)
    for pointer, new in changes.items():
        *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        here = value
        for step in steps:
            if isinstance(here, list):
                while len(here) <= int(step):
                    here.append({})
                here = here[int(step)]
            else:
                if not isinstance(here.get(step), (dict, list)):
                    here[step] = {}
                here = here[step]
        if isinstance(here, list):
            at = len(here) if last == "-" else int(last)
            here[at : at + 1] = [] if new is None else [new]
        elif new is None:
            here.pop(last, None)
        else:
            here[last] = new
    return value


def leaves(value, pointer=""):
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        at = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if at not in ("/apiVersion", "/kind"):
            yield at, inner
            yield from leaves(inner, at)


def objects(only):
    """The row files' objects, each once, as requests in namespace default would bring them."""
    seen = set()
    for file in sorted(glob.glob("tests/validation/rows/*.rows")):
        name, bases = os.path.basename(file)[: -len(".rows")], {}
        for line in open(file):
            row = json.loads(line)
            if "base" in row:
                bases[row["base"]] = row["object"]
            elif row.get("do") in ("create", "store", "default") and name.startswith(only):
                value = changed(changed(bases[row["on"]], row.get("old", {})), row.get("set", {}))
                meta = value.setdefault("metadata", {})
                for field in ("resourceVersion", "uid"):
                    meta.pop(field, None)
                if meta.get("namespace"):
                    meta["namespace"] = "default"
                text = json.dumps(value, sort_keys=True)
                if text not in seen:
                    seen.add(text)
                    yield f"{name}:{row['on']}", value


def mutated(value, picked):
    pointer, old = picked.choice(list(leaves(value)))
    like = [odd for odd in ODD if type(odd) is type(old)]
    new = picked.choice(like if like and picked.random() < 0.75 else ODD)
    if isinstance(old, list) and old and picked.random() < 0.5:
        new = old + [old[0]]
    return f"{pointer}={json.dumps(new)[:40]}", changed(value, {pointer: new})


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in DROPPED}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def shown(text):
    """A text without what is printed of whole structs (Go's names there, ours here)."""
    return re.sub(r'\{"\S*\}', "{…}", text)


def essence(answer, generated):
    """What of an answer is compared."""
    status, text, warnings = answer
    text = re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access-…", UUID.sub("UUID", text))
    if generated:
        text = re.sub(re.escape(generated) + "[bcdfghjklmnpqrstvwxz2456789]{5}", generated + "…", text)
    said = sorted(shown(warning) for warning in warnings if OURS_ALONE not in warning)
    try:
        body = json.loads(text)
    except ValueError:
        return {"code": status, "text": text, "warnings": said}
    if body.get("kind") == "Status":
        causes = (body.get("details") or {}).get("causes") or []
        causes = sorted([c.get("reason") or "", c.get("field") or "", shown(c.get("message") or "")] for c in causes)
        message = None if causes else body.get("message")
        return {"code": status, "reason": body.get("reason"), "message": message, "causes": causes, "warnings": said}
    spec = body.get("spec") or {}
    if body.get("kind") == "Service":
        for field in ("clusterIP", "clusterIPs", "healthCheckNodePort"):
            if spec.get(field) not in (None, "None", ["None"]):
                spec[field] = "…"
        for port in spec.get("ports") or []:
            port.pop("nodePort", None)
    if body.get("kind") == "CertificateSigningRequest":
        for field in ("groups", "username", "extra", "uid"):
            spec.pop(field, None)
    return {"code": status, "object": plain(body), "warnings": said}


def difference(one, other):
    """The parts of two values that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        parts = {key: difference(one.get(key), other.get(key)) for key in keys}
        return {key: a for key, (a, _) in parts.items()}, {key: b for key, (_, b) in parts.items()}
    if isinstance(one, list) and isinstance(other, list):
        return [a for a in one if a not in other], [b for b in other if b not in one]
    return one, other


def known():
    lines = [line.strip() for line in open("tests/upstream/known")]
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def main():
    upstream, ours = servers()
    served = resources(upstream)
    count, groups, patterns = Counter(), OrderedDict(), known()

    def compare(label, value):
        place = served.get((value.get("apiVersion"), value.get("kind")))
        if place is None:
            return False
        root, name, namespaced = place
        path = f"{root}/namespaces/default/{name}" if namespaced else f"{root}/{name}"
        meta = value.get("metadata")
        generated = meta.get("generateName") if isinstance(meta, dict) and not meta.get("name") else None
        generated = generated if isinstance(generated, str) else None
        answers = [s.send("POST", path + "?dryRun=All&fieldValidation=Strict", value) for s in (upstream, ours)]
        a, b = (essence(answer, generated) for answer in answers)
        count["requests"] += 1
        if a != b:
            theirs, mine = difference(a, b)
            line = f"{value['kind']} upstream {json.dumps(theirs)} ours {json.dumps(mine)}"
            if any(pattern.search(line) for pattern in patterns):
                count["known"] += 1
            else:
                count["different"] += 1
                key = re.sub(r"\d+|a{9,}", "#", line)[:240]
                groups.setdefault(key, []).append((label, theirs, mine))
        return answers[0][0] == 201

    picked = random.Random(int(os.environ.get("SEED", "1")))
    taken = [(label, value) for label, value in objects(sys.argv[1] if len(sys.argv) > 1 else "") if compare(label, value)]
    for label, value in taken:
        for _ in range(int(os.environ.get("MUTATIONS", "25"))):
            what, other = mutated(value, picked)
            compare(f"{label} {what}", other)
    for group in sorted(groups.values(), key=len, reverse=True):
        label, theirs, mine = group[0]
        print(f"{len(group)} times, as {label}")
        print(f"    upstream {json.dumps(theirs)[:600]}\n    ours     {json.dumps(mine)[:600]}")
    print(f"{count['requests']} requests: {count['different']} answered differently, {count['known']} as is known")
    return 1 if groups else 0


if __name__ == "__main__":
    sys.exit(main())
