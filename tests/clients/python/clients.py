"""Python's `kubernetes` against a cluster: list, watch, patch, apply, the dynamic client and leader election.

Prints `ok NAME` or `FAILED NAME: reason` for each thing it tried.
"""

import os
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NAMESPACE = "python"


def expect(found, wanted, what=""):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def eventually(what, check, seconds=30):
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def refused(code, call):
    try:
        call()
    except ApiException as error:
        expect(error.status, code, error.body)
        return error
    raise AssertionError(f"not refused with {code}")


def fresh_namespace(core):
    try:
        core.delete_namespace(NAMESPACE)
    except ApiException as error:
        expect(error.status, 404)

    def made():
        try:
            core.create_namespace({"metadata": {"name": NAMESPACE}})
        except ApiException as error:
            expect(error.status, 409)
            return False
        return True

    eventually("an earlier run's namespace goes", made)


def config_map(name, data=None, labels=None):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def lists(core):
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"list-{number}", labels={"group": "list"}))
    names, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="group=list", limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
        pages += 1
        token = page.metadata._continue
        if not token:
            break
    expect(names, [f"list-{number}" for number in range(5)])
    expect(pages, 3, "pages")
    expect(page.items[0].metadata.creation_timestamp.tzinfo is not None, True, "a time with its zone")


def watches(core):
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("watch"))
    core.patch_namespaced_config_map("watch", NAMESPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("watch", NAMESPACE)
    told = []
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        field_selector="metadata.name=watch",
        resource_version=start,
        timeout_seconds=20,
    ):
        told.append((event["type"], event["object"].data))
        if len(told) == 3:
            stream.stop()
    expect(told, [("ADDED", None), ("MODIFIED", {"a": "b"}), ("DELETED", {"a": "b"})])


def patches(core):
    core.create_namespaced_config_map(NAMESPACE, config_map("patch", {"a": "1"}))
    core.patch_namespaced_config_map("patch", NAMESPACE, {"data": {"b": "1", "c": "1"}})
    core.patch_namespaced_config_map("patch", NAMESPACE, [{"op": "remove", "path": "/data/b"}])
    merge = {"data": {"c": None, "d": "1"}}
    patched = core.patch_namespaced_config_map(
        "patch", NAMESPACE, merge, _content_type="application/merge-patch+json"
    )
    expect(patched.data, {"a": "1", "d": "1"})
    missing = [{"op": "remove", "path": "/data/none"}]
    refused(422, lambda: core.patch_namespaced_config_map("patch", NAMESPACE, missing))
    old = core.read_namespaced_config_map("patch", NAMESPACE)
    core.patch_namespaced_config_map("patch", NAMESPACE, {"data": {"a": "2"}})
    refused(409, lambda: core.replace_namespaced_config_map("patch", NAMESPACE, old))


def applies(core):
    def apply(value, **options):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "apply"}, "data": {"a": value}}
        return core.patch_namespaced_config_map(
            "apply", NAMESPACE, body, _content_type="application/apply-patch+yaml", **options
        )

    apply("1", field_manager="first")
    error = refused(409, lambda: apply("2", field_manager="second"))
    expect('conflict with \\"first\\": .data.a' in error.body, True, error.body)
    taken = apply("2", field_manager="second", force=True)
    expect([entry.manager for entry in taken.metadata.managed_fields], ["second"])


def typed_objects(apps, batch):
    """Objects whose models check what they must hold."""
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Always", "nodeSelector": {"nothing": "here"}, "containers": [{"name": "a", "image": "keelson.dev/pause:1"}]},
    }
    deployment = {
        "metadata": {"name": "typed"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    made = apps.create_namespaced_deployment(NAMESPACE, deployment)
    expect(made.spec.strategy.rolling_update.max_surge, "25%")
    apps.patch_namespaced_deployment_scale("typed", NAMESPACE, {"spec": {"replicas": 2}})
    expect(apps.read_namespaced_deployment_scale("typed", NAMESPACE).spec.replicas, 2)
    template["spec"]["restartPolicy"] = "Never"
    job = {"metadata": {"name": "typed"}, "spec": {"suspend": True, "template": template}}
    expect(batch.create_namespaced_job(NAMESPACE, job).spec.backoff_limit, 6)
    apps.delete_namespaced_deployment("typed", NAMESPACE, propagation_policy="Background")
    refused(404, lambda: apps.read_namespaced_deployment("typed", NAMESPACE))
    refused(404, lambda: batch.read_namespaced_job("none", NAMESPACE))
    bad = {"metadata": {"name": "bad"}, "spec": {"selector": {}, "template": {}}}
    refused(422, lambda: apps.create_namespaced_deployment(NAMESPACE, bad))


def dynamic_client(api):
    """Everything by discovery: a kind found by name, made, listed, watched, patched, applied and deleted."""
    found = dynamic.DynamicClient(api)
    resource = found.resources.get(api_version="apps/v1", kind="Deployment")
    expect((resource.name, resource.namespaced, resource.short_names), ("deployments", True, ["deploy"]))
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dynamic", "labels": {"group": "dynamic"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "d"}},
            "template": {
                "metadata": {"labels": {"a": "d"}},
                "spec": {"containers": [{"name": "a", "image": "keelson.dev/pause:1"}]},
            },
        },
    }
    made = resource.create(body=body, namespace=NAMESPACE)
    expect(made.spec.revisionHistoryLimit, 10)
    listed = resource.get(namespace=NAMESPACE, label_selector="group=dynamic")
    expect([item.metadata.name for item in listed.items], ["dynamic"])
    body["spec"]["template"]["metadata"]["annotations"] = {"n": "1"}
    applied = resource.server_side_apply(
        body=body, namespace=NAMESPACE, field_manager="dynamic", force_conflicts=True
    )
    expect(applied.spec.template.metadata.annotations.to_dict(), {"n": "1"})
    for event in resource.watch(namespace=NAMESPACE, name="dynamic", timeout=10):
        expect(event["object"].metadata.name, "dynamic")
        break
    resource.delete(name="dynamic", namespace=NAMESPACE)
    crds = found.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    expect(crds.namespaced, False)


def every_resource(api):
    """What discovery tells can be listed, is."""
    found = dynamic.DynamicClient(api)
    listed = 0
    for resource in found.resources.search():
        # Kinds of lists stand for another resource.
        if isinstance(resource, dynamic.resource.ResourceList) or "list" not in resource.verbs:
            continue
        # Deprecated, and answered with 501: nothing asks the components for their state.
        if resource.name == "componentstatuses":
            continue
        expect(resource.get().kind.endswith("List"), True, resource.name)
        listed += 1
    expect(listed > 50, True, f"{listed} resources")


class MortalLock(LeaseLock):
    """A candidate's lock that it can no longer renew once it is dead."""

    dead = False

    def update(self, *arguments):
        return False if self.dead else super().update(*arguments)


def election(api):
    """Two candidates want one lease; when the first cannot renew it any more the second leads."""
    leading = []

    def candidate(name):
        lock = MortalLock("leader", NAMESPACE, name)
        settings = electionconfig.Config(
            lock,
            lease_duration=4,
            renew_deadline=3,
            retry_period=1,
            onstarted_leading=lambda: leading.append(name),
            onstopped_leading=lambda: None,
        )
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
        return lock

    first = candidate("a")
    eventually("a leads", lambda: leading == ["a"])
    candidate("b")
    time.sleep(3)
    expect(leading, ["a"], "while a renews")
    leases = client.CoordinationV1Api(api)
    expect(leases.read_namespaced_lease("leader", NAMESPACE).spec.holder_identity, "a")
    first.dead = True
    eventually("b leads", lambda: leading == ["a", "b"])
    expect(leases.read_namespaced_lease("leader", NAMESPACE).spec.holder_identity, "b")


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core, apps, batch = client.CoreV1Api(api), client.AppsV1Api(api), client.BatchV1Api(api)
    tried = [
        ("namespace", lambda: fresh_namespace(core)),
        ("list", lambda: lists(core)),
        ("watch", lambda: watches(core)),
        ("patch", lambda: patches(core)),
        ("apply", lambda: applies(core)),
        ("typed objects", lambda: typed_objects(apps, batch)),
        ("dynamic client", lambda: dynamic_client(api)),
        ("every resource", lambda: every_resource(api)),
        ("leader election", lambda: election(api)),
        ("version", lambda: expect(client.VersionApi(api).get_code().minor, "35")),
        ("clean up", lambda: core.delete_namespace(NAMESPACE)),
    ]
    for name, attempt in tried:
        try:
            attempt()
            print(f"ok {name}", flush=True)
        except Exception as error:  # Whatever went wrong is this one's failure; the others are tried too.
            failures.append(name)
            print(f"FAILED {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)


failures: list[str] = []
main()
# At once: a candidate's thread never ends, and may hold the standard output while the interpreter does.
os._exit(1 if failures else 0)
