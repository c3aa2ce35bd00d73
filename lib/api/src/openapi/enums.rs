//! What the descriptions say of an enumeration's values, in the form of upstream's generator (kube-openapi
//! `pkg/generators/enum.go`): the values of a field that is one string, sorted, each with what it means where upstream says
//! something of it.

use crate::schema::{FieldDef, Kind};

/// A field's description with its values; the description alone where it has none or is a list.
pub(super) fn described(field: &FieldDef, description: &str) -> String {
    let mut text = description.to_owned();
    let values = field.enum_values();
    if values.is_empty() || !matches!(field.kind, Kind::Str) {
        return text;
    }
    let ty = field.ext.go_type.rsplit('.').next().unwrap_or_default();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str("Possible enum values:");
    for value in values {
        text.push_str(&format!("\n - `{value:?}`"));
        let meaning = meaning(ty, value);
        if !meaning.is_empty() {
            text.push(' ');
            text.push_str(meaning);
        }
    }
    text
}

/// What a value of an enumeration means; empty where there is nothing to say beyond its name.
fn meaning(ty: &str, value: &str) -> &'static str {
    let known = MEANINGS.iter().find(|(name, _)| *name == ty).map_or(&[][..], |(_, values)| values);
    known.iter().find(|(name, _)| *name == value).map_or("", |(_, text)| text)
}

/// By the name of the Go type, without its package.
type Meanings = &'static [(&'static str, &'static [(&'static str, &'static str)])];

#[rustfmt::skip]
static MEANINGS: Meanings = &[
    ("AddressType", &[
        ("FQDN", "is a fully qualified domain name."),
        ("IPv4", "is an IPv4 address."),
        ("IPv6", "is an IPv6 address."),
    ]),
    ("AppArmorProfileType", &[
        ("Localhost", "a profile that was loaded on the node beforehand."),
        ("RuntimeDefault", "the profile that the container runtime uses by default."),
        ("Unconfined", "no AppArmor profile."),
    ]),
    ("CompletionMode", &[
        ("Indexed", "each pod has an index from 0 on; the Job is complete when a pod of every index has succeeded."),
        ("NonIndexed", "pods are alike; the Job is complete when as many as wanted have succeeded."),
    ]),
    ("ConcurrencyPolicy", &[
        ("Allow", "jobs may run beside one another."),
        ("Forbid", "a run is skipped while the one before it has not finished."),
        ("Replace", "the running job is cancelled and a new one takes its place."),
    ]),
    ("DNSPolicy", &[
        ("ClusterFirst", "the cluster's DNS, and what it does not know from the node's; with hostNetwork as Default."),
        ("ClusterFirstWithHostNet", "as ClusterFirst, with hostNetwork too."),
        ("Default", "the node's DNS settings, as the kubelet knows them."),
        ("None", "nothing but what dnsConfig says."),
    ]),
    ("DaemonSetUpdateStrategyType", &[
        ("OnDelete", "a pod is replaced when somebody deletes it."),
        ("RollingUpdate", "pods are replaced node by node."),
    ]),
    ("DeploymentStrategyType", &[
        ("Recreate", "all old pods are ended before new ones are made."),
        ("RollingUpdate", "new ReplicaSets grow step by step while the old ones shrink."),
    ]),
    ("DeviceTaintEffect", &[
        ("NoExecute", "pods that do not tolerate the taint are evicted."),
        ("NoSchedule", "new pods are not scheduled with the device unless they tolerate the taint."),
        ("None", "the taint only informs."),
    ]),
    ("FailurePolicyType", &[
        ("Fail", "an error in the call refuses the request."),
        ("Ignore", "an error in the call is ignored."),
    ]),
    ("FieldValueErrorReason", &[
        ("FieldValueDuplicate", "a value that must be unique occurs again."),
        ("FieldValueForbidden", "a well-formed value that is not permitted as things are."),
        ("FieldValueInvalid", "a malformed value: too long, out of bounds, not matching a pattern."),
        ("FieldValueRequired", "a value that must be given is missing."),
    ]),
    ("HostPathType", &[
        ("", "nothing is checked."),
        ("BlockDevice", "a block device must be at the path."),
        ("CharDevice", "a character device must be at the path."),
        ("Directory", "a directory must be at the path."),
        ("DirectoryOrCreate", "an empty directory of mode 0755 is made where there is none."),
        ("File", "a file must be at the path."),
        ("FileOrCreate", "an empty file of mode 0644 is made where there is none."),
        ("Socket", "a UNIX socket must be at the path."),
    ]),
    ("IPFamilyPolicy", &[
        ("PreferDualStack", "addresses of both families where the cluster has both, else of the one it has."),
        ("RequireDualStack", "addresses of both families; refused where the cluster has one."),
        ("SingleStack", "one address, of the first family of ipFamilies or of the cluster's first."),
    ]),
    ("MatchPolicyType", &[
        ("Equivalent", "what a rule names matches in any of its API groups and versions."),
        ("Exact", "only what a rule names exactly matches."),
    ]),
    ("MetricSourceType", &[
        ("ContainerResource", "a resource (CPU, memory) of one container in each pod."),
        ("External", "a figure from outside of the cluster."),
        ("Object", "a figure of one Kubernetes object."),
        ("Pods", "a figure of each pod, averaged."),
        ("Resource", "a resource (CPU, memory) of each pod."),
    ]),
    ("MountPropagationMode", &[
        ("Bidirectional", "mounts made on the host appear in the container and the other way round (rshared)."),
        ("HostToContainer", "mounts made on the host appear in the container (rslave)."),
        ("None", "neither sees the other's later mounts (rprivate)."),
    ]),
    ("NamespacePhase", &[
        ("Active", "the namespace can be used."),
        ("Terminating", "the namespace is being deleted with all that is in it."),
    ]),
    ("NodeInclusionPolicy", &[
        ("Honor", "counts when the spread is computed."),
        ("Ignore", "does not count when the spread is computed."),
    ]),
    ("NodePhase", &[
        ("Pending", "the node was added and is not configured yet."),
        ("Running", "the node is configured and its components run."),
        ("Terminated", "the node was removed."),
    ]),
    ("ParameterNotFoundActionType", &[
        ("Allow", "missing parameters count as a match that admits."),
        ("Deny", "missing parameters count as a failure."),
    ]),
    ("PatchType", &[
        ("ApplyConfiguration", "the object is changed by an apply configuration."),
        ("JSONPatch", "the object is changed by a JSON patch."),
    ]),
    ("PathType", &[
        ("Exact", "the path is the same, upper and lower case told apart."),
        ("ImplementationSpecific", "the ingress class decides."),
        ("Prefix", "the path begins with these elements, as they stand between slashes; the longest match wins."),
    ]),
    ("PersistentVolumeClaimModifyVolumeStatus", &[
        ("InProgress", "the volume is being modified."),
        ("Infeasible", "the driver refused the modification; another class is needed."),
        ("Pending", "the modification cannot begin yet, for example as its class does not exist."),
    ]),
    ("PersistentVolumeClaimPhase", &[
        ("Bound", "the claim has its volume."),
        ("Lost", "the claim's volume is gone, and its data with it."),
        ("Pending", "the claim has no volume yet."),
    ]),
    ("PersistentVolumeMode", &[
        ("Block", "a raw block device without a file system."),
        ("Filesystem", "a volume with a file system."),
    ]),
    ("PersistentVolumePhase", &[
        ("Available", "no claim has the volume yet."),
        ("Bound", "a claim has the volume."),
        ("Failed", "reclaiming the volume failed."),
        ("Pending", "the volume cannot be used yet."),
        ("Released", "the claim is gone and the volume is not reclaimed yet."),
    ]),
    ("PersistentVolumeReclaimPolicy", &[
        ("Delete", "the volume is deleted with its claim."),
        ("Recycle", "the volume is emptied and can be claimed again."),
        ("Retain", "the volume stays for the administrator to deal with."),
    ]),
    ("PodFSGroupChangePolicy", &[
        ("Always", "owner and permissions are set at every mount."),
        ("OnRootMismatch", "owner and permissions are set where those of the root differ."),
    ]),
    ("PodFailurePolicyAction", &[
        ("Count", "the failure counts towards backoffLimit, as without a policy."),
        ("FailIndex", "the index fails and is not tried again; only with backoffLimitPerIndex."),
        ("FailJob", "the Job fails and its running pods are ended."),
        ("Ignore", "the failure does not count and the pod is replaced."),
    ]),
    ("PodManagementPolicyType", &[
        ("OrderedReady", "pods come in order, each once the one before it is ready, and go in reverse order."),
        ("Parallel", "pods come and go all at once."),
    ]),
    ("PodPhase", &[
        ("Failed", "all containers have ended, at least one of them in failure."),
        ("Pending", "the pod is accepted and not all its containers were started."),
        ("Running", "the pod is on a node and at least one container runs, starts or is restarted."),
        ("Succeeded", "all containers have ended well and none is restarted."),
        ("Unknown", "the pod's state could not be obtained; not used any more."),
    ]),
    ("PodQOSClass", &[
        ("BestEffort", "no container has requests or limits."),
        ("Burstable", "some requests or limits, short of Guaranteed."),
        ("Guaranteed", "requests equal limits for all."),
    ]),
    ("PodReplacementPolicy", &[
        ("Failed", "a replacement waits until the old pod has ended."),
        ("TerminatingOrFailed", "a replacement is made as soon as the old pod terminates or fails."),
    ]),
    ("PreemptionPolicy", &[
        ("Never", "the pod takes no place from others."),
        ("PreemptLowerPriority", "the pod may take the place of pods of lower priority."),
    ]),
    ("ProcMountType", &[
        ("Default", "paths below /proc are masked and read-only as the container runtime has it."),
        ("Unmasked", "nothing below /proc is masked."),
    ]),
    ("Protocol", &[("SCTP", "is the SCTP protocol."), ("TCP", "is the TCP protocol."), ("UDP", "is the UDP protocol.")]),
    ("PullPolicy", &[
        ("Always", "the image is asked for at every start; the container fails when that fails."),
        ("IfNotPresent", "the image is pulled when the node does not have it."),
        ("Never", "the image must be on the node already."),
    ]),
    ("ReinvocationPolicyType", &[
        ("IfNeeded", "called again when others have changed the object since."),
        ("Never", "called at most once for an admission."),
    ]),
    ("ResourceQuotaScope", &[
        ("BestEffort", "pods of the quality of service BestEffort."),
        ("CrossNamespacePodAffinity", "pods with affinity to pods of other namespaces."),
        ("NotBestEffort", "pods of any other quality of service than BestEffort."),
        ("NotTerminating", "pods without activeDeadlineSeconds."),
        ("PriorityClass", "pods with a priority class."),
        ("Terminating", "pods with activeDeadlineSeconds."),
        ("VolumeAttributesClass", "claims with a class of volume attributes."),
    ]),
    ("ScopeType", &[
        ("*", "objects of both scopes."),
        ("Cluster", "objects without a namespace; namespaces themselves are such."),
        ("Namespaced", "objects in namespaces."),
    ]),
    ("SeccompProfileType", &[
        ("Localhost", "a profile from a file on the node, below the kubelet's folder for them."),
        ("RuntimeDefault", "the profile that the container runtime uses by default."),
        ("Unconfined", "no seccomp profile."),
    ]),
    ("ServiceAffinity", &[
        ("ClientIP", "connections of one client address go to one endpoint."),
        ("None", "connections go to any endpoint."),
    ]),
    ("ServiceExternalTrafficPolicy", &[
        ("Cluster", "traffic goes to all endpoints."),
        ("Local", "traffic goes to endpoints on the node that it reaches, which keeps its source address; dropped where there are none."),
    ]),
    ("ServiceInternalTrafficPolicy", &[
        ("Cluster", "traffic goes to all endpoints."),
        ("Local", "traffic goes to endpoints on the client's own node; dropped where there are none."),
    ]),
    ("ServiceType", &[
        ("ClusterIP", "reached inside of the cluster, by an address of its own."),
        ("ExternalName", "an alias in DNS for a name outside of the cluster; nothing is forwarded."),
        ("LoadBalancer", "reached through an external load balancer, and as NodePort."),
        ("NodePort", "reached on a port of every node, and as ClusterIP."),
    ]),
    ("SideEffectClass", &[
        ("None", "the webhook changes nothing else."),
        ("NoneOnDryRun", "the webhook changes nothing else when the request is a dry run."),
        ("Some", "the webhook may change other things; a dry run that would call it fails."),
        ("Unknown", "nothing is known; a dry run that would call it fails."),
    ]),
    ("StatefulSetUpdateStrategyType", &[
        ("OnDelete", "a pod gets the new revision when somebody deletes it."),
        ("RollingUpdate", "pods are replaced one after the other, in the set's order."),
    ]),
    ("SupplementalGroupsPolicy", &[
        ("Merge", "the groups of the security context join those that the image has for the user."),
        ("Strict", "only the groups of the security context."),
    ]),
    ("TaintEffect", &[
        ("NoExecute", "running pods that do not tolerate the taint are evicted."),
        ("NoSchedule", "the scheduler places no new pods that do not tolerate the taint."),
        ("PreferNoSchedule", "the scheduler avoids the node for pods that do not tolerate the taint."),
    ]),
    ("TerminationMessagePolicy", &[
        ("FallbackToLogsOnError", "the end of the log where the container failed and wrote no message."),
        ("File", "what the container wrote to terminationMessagePath."),
    ]),
    ("URIScheme", &[("HTTP", "the scheme is http://"), ("HTTPS", "the scheme is https://")]),
    ("UnhealthyPodEvictionPolicyType", &[
        ("AlwaysAllow", "running pods that are not healthy may be evicted whatever the budget says."),
        ("IfHealthyBudget", "running pods that are not healthy may be evicted while enough healthy ones are there."),
    ]),
    ("UnsatisfiableConstraintAction", &[
        ("DoNotSchedule", "the pod waits until the constraint is met."),
        ("ScheduleAnyway", "the pod is scheduled, preferring places that come closer to it."),
    ]),
    ("VolumeBindingMode", &[
        ("Immediate", "claims are provisioned and bound as soon as they are made."),
        ("WaitForFirstConsumer", "claims are provisioned and bound when a pod that uses them is scheduled."),
    ]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TypeId;

    #[test]
    fn every_meaning_is_of_a_value_that_there_is() {
        let fields = || TypeId::all().flat_map(|ty| ty.def().fields);
        for (ty, values) in MEANINGS {
            for (value, _) in *values {
                let known = fields().any(|field| {
                    field.ext.go_type.rsplit('.').next() == Some(ty) && field.enum_values().contains(value)
                });
                assert!(known, "{ty} {value}");
            }
        }
    }

    #[test]
    fn values_follow_the_description() {
        let field = |ty: &str, name: &str| {
            let def = TypeId::by_name(ty).unwrap().def();
            def.fields.iter().find(|field| field.json == name).unwrap()
        };
        let policy = field("io.k8s.api.core.v1.PodSpec", "restartPolicy");
        assert_eq!(
            described(policy, "Text."),
            "Text.\n\nPossible enum values:\n - `\"Always\"`\n - `\"Never\"`\n - `\"OnFailure\"`"
        );
        let scheme = field("io.k8s.api.core.v1.HTTPGetAction", "scheme");
        assert!(
            described(scheme, "").starts_with("Possible enum values:\n - `\"HTTP\"` the scheme is http://\n")
        );
        let modes = field("io.k8s.api.core.v1.PersistentVolumeClaimSpec", "accessModes");
        assert_eq!(described(modes, "Text."), "Text.", "a list says nothing of its elements");
    }
}
