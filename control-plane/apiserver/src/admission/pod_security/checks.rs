//! The checks of the Pod Security Standards, with upstream's reasons and details.
//!
//! Versions before 1.23 are judged by that version's checks: annotations that older releases used instead of fields are
//! not looked at, except AppArmor's.

use super::{Level, Standard, Version};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, LifecycleHandler, PodSecurityContext, PodSpec, Probe, SELinuxOptions,
    SecurityContext, Volume,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is looked at of a pod.
pub(super) struct PodView {
    pub annotations: BTreeMap<String, String>,
    pub spec: PodSpec,
}

/// What a pod must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// All violations of a standard: baseline's checks by name, then restricted's.
pub(super) fn violations(pod: &PodView, standard: Standard) -> Vec<Violation> {
    let restricted = standard.level == Level::Restricted;
    let pod = Pod { view: pod, version: standard.version };
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let mut found = vec![pod.app_armor()];
    // Where the restricted standard has a stricter check of the same thing, that one alone speaks.
    if !restricted {
        found.push(pod.capabilities_baseline());
    }
    found.push(pod.host_namespaces());
    if !restricted {
        found.push(pod.host_path());
    }
    found.push(pod.host_ports());
    found.push(pod.probe_hosts());
    found.push(pod.privileged());
    if !(restricted && pod.since(35)) {
        found.push(pod.proc_mount(pod.since(35)));
    }
    found.push(pod.selinux());
    if !restricted {
        found.push(pod.seccomp_baseline());
    }
    found.push(pod.sysctls());
    found.push(pod.windows_host_process());
    if restricted {
        found.push(pod.privilege_escalation());
        found.push(pod.capabilities_restricted());
        if pod.since(35) {
            found.push(pod.proc_mount(false));
        }
        found.push(pod.volumes());
        found.push(pod.non_root());
        found.push(pod.run_as_user());
        found.push(pod.seccomp_restricted());
    }
    found.into_iter().flatten().collect()
}

struct Pod<'a> {
    view: &'a PodView,
    version: Version,
}

/// The parts that containers of all three lists share.
struct Part<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    host_ports: Vec<i32>,
    probes: [Option<&'a Probe>; 3],
    handlers: [Option<&'a LifecycleHandler>; 2],
}

fn plural(singular: &'static str, plural: &'static str, n: usize) -> &'static str {
    if n == 1 { singular } else { plural }
}

fn quote<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    items.join(", ")
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quote(names))
}

/// `pod and containers "a", "b"`, whoever of them did it.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(containers(names)),
        (true, names) => Some(format!("pod and {}", containers(names))),
    }
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls, and the minor version from which they are safe.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

fn part(container: &Container) -> Part<'_> {
    let lifecycle = container.lifecycle.as_ref();
    Part {
        name: &container.name,
        security: container.security_context.as_ref(),
        host_ports: container
            .ports
            .iter()
            .flatten()
            .filter_map(|p| p.host_port)
            .filter(|p| *p != 0)
            .collect(),
        probes: [
            container.liveness_probe.as_ref(),
            container.readiness_probe.as_ref(),
            container.startup_probe.as_ref(),
        ],
        handlers: [
            lifecycle.and_then(|l| l.post_start.as_ref()),
            lifecycle.and_then(|l| l.pre_stop.as_ref()),
        ],
    }
}

impl<'a> Pod<'a> {
    fn since(&self, minor: u32) -> bool {
        self.version >= Version(minor)
    }

    fn context(&self) -> Option<&'a PodSecurityContext> {
        self.view.spec.security_context.as_ref()
    }

    /// Init containers, containers, ephemeral containers.
    fn parts(&self) -> Vec<Part<'a>> {
        let spec = &self.view.spec;
        let own = spec.init_containers.iter().flatten().chain(&spec.containers).map(part);
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| Part {
            name: &c.name,
            security: c.security_context.as_ref(),
            host_ports: c.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0).collect(),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            handlers: [
                c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()),
                c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()),
            ],
        });
        own.chain(ephemeral).collect()
    }

    /// Names of the containers for which `bad` holds.
    fn bad(&self, mut bad: impl FnMut(&Part<'a>) -> bool) -> Vec<&'a str> {
        self.parts().iter().filter(|p| bad(p)).map(|p| p.name).collect()
    }

    fn windows(&self) -> bool {
        self.since(25) && self.view.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// In a user namespace of its own.
    fn user_namespace(&self) -> bool {
        self.view.spec.host_users == Some(false)
    }

    fn app_armor(&self) -> Option<Violation> {
        let fine = |kind: &str| kind == "RuntimeDefault" || kind == "Localhost";
        let mut values = BTreeSet::new();
        let mut setters = Vec::new();
        let pod = self.context().and_then(|c| c.app_armor_profile.as_ref());
        if let Some(profile) = pod.filter(|p| !fine(&p.type_)) {
            setters.push("pod".to_owned());
            values.insert(profile.type_.clone());
        }
        let bad = self.bad(|part| {
            let profile =
                part.security.and_then(|s| s.app_armor_profile.as_ref()).filter(|p| !fine(&p.type_));
            values.extend(profile.map(|p| p.type_.clone()));
            profile.is_some()
        });
        if !bad.is_empty() {
            setters.push(containers(&bad));
        }
        let annotations: Vec<String> = self
            .view
            .annotations
            .iter()
            .filter(|(key, value)| {
                let allowed =
                    value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
                key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
            })
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        let mut values: Vec<String> = values.into_iter().collect();
        if !annotations.is_empty() {
            setters.push(plural("annotation", "annotations", annotations.len()).to_owned());
            values.extend(annotations);
        }
        if setters.is_empty() {
            return None;
        }
        let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
        violation(
            reason,
            format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quote(values)),
        )
    }

    fn capabilities_baseline(&self) -> Option<Violation> {
        let mut added = BTreeSet::new();
        let bad = self.bad(|part| {
            let add = part.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.add.as_ref());
            let wrong: Vec<&String> =
                add.into_iter().flatten().filter(|c| !CAPABILITIES.contains(&c.as_str())).collect();
            added.extend(wrong.iter().map(|c| (*c).clone()));
            !wrong.is_empty()
        });
        if bad.is_empty() {
            return None;
        }
        let detail = format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&bad),
            quote(added)
        );
        violation("non-default capabilities", detail)
    }

    fn capabilities_restricted(&self) -> Option<Violation> {
        if self.windows() {
            return None;
        }
        let capabilities = |part: &Part<'a>| -> Option<&'a Capabilities> {
            part.security.and_then(|s| s.capabilities.as_ref())
        };
        let undropped = self.bad(|part| {
            let drop = capabilities(part).and_then(|c| c.drop.as_ref());
            !drop.into_iter().flatten().any(|c| c == "ALL")
        });
        let mut added = BTreeSet::new();
        let adding = self.bad(|part| {
            let add = capabilities(part).and_then(|c| c.add.as_ref());
            let wrong: Vec<&String> =
                add.into_iter().flatten().filter(|c| *c != "NET_BIND_SERVICE").collect();
            added.extend(wrong.iter().map(|c| (*c).clone()));
            !wrong.is_empty()
        });
        let mut details = Vec::new();
        if !undropped.is_empty() {
            details.push(format!(
                "{} must set securityContext.capabilities.drop=[\"ALL\"]",
                containers(&undropped)
            ));
        }
        if !adding.is_empty() {
            let names = containers(&adding);
            details.push(format!(
                "{names} must not include {} in securityContext.capabilities.add",
                quote(added)
            ));
        }
        if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
    }

    fn host_namespaces(&self) -> Option<Violation> {
        let spec = &self.view.spec;
        let all = [
            (spec.host_network, "hostNetwork=true"),
            (spec.host_pid, "hostPID=true"),
            (spec.host_ipc, "hostIPC=true"),
        ];
        let set: Vec<&str> =
            all.into_iter().filter(|(on, _)| *on == Some(true)).map(|(_, text)| text).collect();
        if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
    }

    fn host_path(&self) -> Option<Violation> {
        let volumes = self.view.spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
        let names: Vec<&str> = volumes.map(|v| v.name.as_str()).collect();
        if names.is_empty() {
            return None;
        }
        violation(
            "hostPath volumes",
            format!("{} {}", plural("volume", "volumes", names.len()), quote(&names)),
        )
    }

    fn host_ports(&self) -> Option<Violation> {
        let mut ports = BTreeSet::new();
        let bad = self.bad(|part| {
            ports.extend(part.host_ports.iter().map(i32::to_string));
            !part.host_ports.is_empty()
        });
        if bad.is_empty() {
            return None;
        }
        let list = ports.iter().cloned().collect::<Vec<_>>().join(", ");
        let (uses, noun) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", ports.len()));
        violation("hostPort", format!("{} {uses} {noun} {list}", containers(&bad)))
    }

    fn probe_hosts(&self) -> Option<Violation> {
        if !self.since(34) {
            return None;
        }
        let mut hosts = BTreeSet::new();
        let mut bad: Vec<&str> = self.bad(|part| {
            let mut found: Vec<&String> = Vec::new();
            for probe in part.probes.into_iter().flatten() {
                found.extend(probe.http_get.as_ref().and_then(|h| h.host.as_ref()));
                found.extend(probe.tcp_socket.as_ref().and_then(|t| t.host.as_ref()));
            }
            for handler in part.handlers.into_iter().flatten() {
                found.extend(handler.http_get.as_ref().and_then(|h| h.host.as_ref()));
                found.extend(handler.tcp_socket.as_ref().and_then(|t| t.host.as_ref()));
            }
            found.retain(|host| !host.is_empty());
            hosts.extend(found.iter().map(|h| (*h).clone()));
            !found.is_empty()
        });
        if bad.is_empty() {
            return None;
        }
        bad.sort_unstable();
        let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        let uses = plural("uses", "use", bad.len());
        violation("probe or lifecycle host", format!("{} {uses} {noun} {}", containers(&bad), quote(hosts)))
    }

    fn privileged(&self) -> Option<Violation> {
        let bad = self.bad(|part| part.security.and_then(|s| s.privileged) == Some(true));
        if bad.is_empty() {
            return None;
        }
        violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
    }

    fn proc_mount(&self, relaxed: bool) -> Option<Violation> {
        if relaxed && self.user_namespace() {
            return None;
        }
        let mut types = BTreeSet::new();
        let bad = self.bad(|part| {
            let kind = part.security.and_then(|s| s.proc_mount.as_ref()).filter(|kind| *kind != "Default");
            types.extend(kind.cloned());
            kind.is_some()
        });
        if bad.is_empty() {
            return None;
        }
        violation(
            "procMount",
            format!("{} must not set securityContext.procMount to {}", containers(&bad), quote(types)),
        )
    }

    fn selinux(&self) -> Option<Violation> {
        let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
        let engine = self.since(31);
        let mut wrong = |options: &SELinuxOptions| {
            let kind = options.type_.as_deref().unwrap_or_default();
            let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
            let bad_type = !SELINUX_TYPES.contains(&kind) && !(engine && kind == "container_engine_t");
            if bad_type {
                types.insert(kind.to_owned());
            }
            let (has_user, has_role) = (set(&options.user), set(&options.role));
            user |= has_user;
            role |= has_role;
            bad_type || has_user || has_role
        };
        let pod = self.context().and_then(|c| c.se_linux_options.as_ref()).is_some_and(&mut wrong);
        let bad =
            self.bad(|part| part.security.and_then(|s| s.se_linux_options.as_ref()).is_some_and(&mut wrong));
        let who = setters(pod, &bad)?;
        let mut data = Vec::new();
        if !types.is_empty() {
            data.push(format!("{} {}", plural("type", "types", types.len()), quote(types)));
        }
        if user {
            data.push("user may not be set".to_owned());
        }
        if role {
            data.push("role may not be set".to_owned());
        }
        let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
        violation("seLinuxOptions", detail)
    }

    /// Who sets a profile that is none of the two good ones, and which.
    fn bad_seccomp(&self) -> Option<Violation> {
        let fine = |kind: &str| kind == "RuntimeDefault" || kind == "Localhost";
        let mut values = BTreeSet::new();
        let profile = self.context().and_then(|c| c.seccomp_profile.as_ref()).filter(|p| !fine(&p.type_));
        values.extend(profile.map(|p| p.type_.clone()));
        let bad = self.bad(|part| {
            let profile = part.security.and_then(|s| s.seccomp_profile.as_ref()).filter(|p| !fine(&p.type_));
            values.extend(profile.map(|p| p.type_.clone()));
            profile.is_some()
        });
        let who = setters(profile.is_some(), &bad)?;
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quote(values));
        violation("seccompProfile", detail)
    }

    fn seccomp_baseline(&self) -> Option<Violation> {
        self.bad_seccomp()
    }

    fn seccomp_restricted(&self) -> Option<Violation> {
        if self.windows() {
            return None;
        }
        if let Some(found) = self.bad_seccomp() {
            return Some(found);
        }
        let pod = self.context().is_some_and(|c| c.seccomp_profile.is_some());
        let unset = self.bad(|part| !pod && part.security.is_none_or(|s| s.seccomp_profile.is_none()));
        if unset.is_empty() {
            return None;
        }
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&unset)
        );
        violation("seccompProfile", detail)
    }

    fn sysctls(&self) -> Option<Violation> {
        let set = self.context().and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
        let safe = |name: &str| SYSCTLS.iter().any(|(known, minor)| *known == name && self.since(*minor));
        let bad: Vec<&str> = set.map(|s| s.name.as_str()).filter(|name| !safe(name)).collect();
        if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
    }

    fn windows_host_process(&self) -> Option<Violation> {
        let pod = self.context().and_then(|c| c.windows_options.as_ref()).and_then(|w| w.host_process)
            == Some(true);
        let bad = self.bad(|part| {
            part.security.and_then(|s| s.windows_options.as_ref()).and_then(|w| w.host_process) == Some(true)
        });
        let who = setters(pod, &bad)?;
        violation(
            "hostProcess",
            format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
        )
    }

    fn privilege_escalation(&self) -> Option<Violation> {
        if self.windows() {
            return None;
        }
        let bad = self.bad(|part| part.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
        if bad.is_empty() {
            return None;
        }
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
        violation("allowPrivilegeEscalation != false", detail)
    }

    fn volumes(&self) -> Option<Violation> {
        let mut types = BTreeSet::new();
        let mut names = Vec::new();
        for volume in self.view.spec.volumes.iter().flatten() {
            if let Some(kind) = restricted_kind(volume) {
                types.insert(kind);
                names.push(volume.name.as_str());
            }
        }
        if names.is_empty() {
            return None;
        }
        let noun = plural("restricted volume type", "restricted volume types", types.len());
        let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
        violation(
            "restricted volume types",
            format!("{volumes} {} {uses} {noun} {}", quote(&names), quote(types)),
        )
    }

    fn non_root(&self) -> Option<Violation> {
        const REASON: &str = "runAsNonRoot != true";
        if self.since(35) && self.user_namespace() {
            return None;
        }
        let pod = self.context().and_then(|c| c.run_as_non_root);
        let of = |part: &Part<'_>| part.security.and_then(|s| s.run_as_non_root);
        let explicit = self.bad(|part| of(part) == Some(false));
        if let Some(who) = setters(pod == Some(false), &explicit) {
            return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
        }
        let implicit = self.bad(|part| of(part).is_none() && pod != Some(true));
        if implicit.is_empty() {
            return None;
        }
        violation(
            REASON,
            format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)),
        )
    }

    fn run_as_user(&self) -> Option<Violation> {
        if self.since(35) && self.user_namespace() {
            return None;
        }
        let pod = self.context().and_then(|c| c.run_as_user) == Some(0);
        let bad = self.bad(|part| part.security.and_then(|s| s.run_as_user) == Some(0));
        let who = setters(pod, &bad)?;
        violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
    }
}

/// The type of a volume that the restricted standard does not allow.
fn restricted_kind(v: &Volume) -> Option<&'static str> {
    let allowed = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    if allowed {
        return None;
    }
    let kinds = [
        (v.host_path.is_some(), "hostPath"),
        (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (v.git_repo.is_some(), "gitRepo"),
        (v.nfs.is_some(), "nfs"),
        (v.iscsi.is_some(), "iscsi"),
        (v.glusterfs.is_some(), "glusterfs"),
        (v.rbd.is_some(), "rbd"),
        (v.flex_volume.is_some(), "flexVolume"),
        (v.cinder.is_some(), "cinder"),
        (v.cephfs.is_some(), "cephfs"),
        (v.flocker.is_some(), "flocker"),
        (v.fc.is_some(), "fc"),
        (v.azure_file.is_some(), "azureFile"),
        (v.vsphere_volume.is_some(), "vsphereVolume"),
        (v.quobyte.is_some(), "quobyte"),
        (v.azure_disk.is_some(), "azureDisk"),
        (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (v.portworx_volume.is_some(), "portworxVolume"),
        (v.scale_io.is_some(), "scaleIO"),
        (v.storageos.is_some(), "storageos"),
    ];
    Some(kinds.into_iter().find(|(is, _)| *is).map_or("unknown", |(_, kind)| kind))
}
